//! Problems put at their place in a definition file.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, Spanned as _};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::planner::Planner;
use super::problem::{Place, PlanResult, Problem};
use crate::sql::{Diagnostic, SourceFile, Span};
use datafusion::logical_expr::LogicalPlan;

/// A query in its file: where problems with it are shown.
pub struct Located<'a> {
    pub file: &'a Arc<SourceFile>,
    pub query: &'a Query,
    pub query_span: Span,
}

impl Located<'_> {
    pub fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let span = match &problem.place {
            Place::At(line, column, length) => Span::new(*line, *column, *length),
            Place::Name(name) => self.find(name).unwrap_or(self.query_span),
            Place::Column(index) => self.item(*index).unwrap_or(self.query_span),
            Place::Query => self.query_span,
        };
        let mut diagnostic = Diagnostic::new(self.file, span, problem.message).maybe_hint(problem.hint);
        if let Some(expected) = problem.expected {
            diagnostic = diagnostic.expected(expected);
        }
        diagnostic
    }

    /// Plans the query. When that fails, plans each column of its outermost SELECT by itself, so that every
    /// column with an error is reported, at its place.
    pub fn plan(&self, planner: &Planner) -> Result<LogicalPlan, Vec<Diagnostic>> {
        let whole = match self.attempt(planner, self.query) {
            Ok(plan) => return Ok(plan),
            Err(problem) => problem,
        };
        let columns = match self.query.body.as_ref() {
            SetExpr::Select(select) => select.projection.len(),
            _ => 0,
        };
        let mut found: Vec<(usize, Problem)> = vec![];
        let mut failures = 0;
        for index in 0..columns {
            let mut alone = self.query.clone();
            if let SetExpr::Select(select) = alone.body.as_mut() {
                select.projection = vec![select.projection.swap_remove(index)];
            }
            let attempt = self.attempt(planner, &alone);
            failures += usize::from(attempt.is_err());
            match attempt {
                Ok(_) => {}
                // The same error for every column is an error of FROM or WHERE: once is enough.
                Err(problem) if found.iter().any(|(_, p)| *p == problem) => {}
                Err(problem) => found.push((index, problem)),
            }
        }
        if failures == columns && found.len() == 1 || found.is_empty() {
            return Err(vec![self.diagnostic(whole)]);
        }
        Err(found.into_iter().map(|(index, p)| self.diagnostic(p.at_column(Some(index)))).collect())
    }

    fn attempt(&self, planner: &Planner, query: &Query) -> PlanResult<LogicalPlan> {
        planner.plan(query).map_err(Problem::from).map_err(|p| match unknown_relation(&p) {
            Some(name) => {
                if let Some(why) = planner.refusal(&name) {
                    return Problem { message: format!("`{name}` {why}"), ..p };
                }
                let near = crate::sql::nearest(&name, planner.names());
                let known: Vec<&str> = planner.names().collect();
                let p = p.expected(if known.is_empty() { "a relation that is defined".into() } else { format!("one of {}", known.join(", ")) });
                match near {
                    Some(near) => p.hint(format!("did you mean `{near}`?")),
                    None => p,
                }
            }
            None => p,
        })
    }

    fn item(&self, index: usize) -> Option<Span> {
        let SetExpr::Select(select) = self.query.body.as_ref() else { return None };
        let item = select.projection.get(index)?;
        let span = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.span(),
            other => other.span(),
        };
        (span.start.line > 0).then(|| self.file.span(span))
    }

    /// The first token of the query that is this word, or the last part of this dotted name.
    fn find(&self, name: &str) -> Option<Span> {
        let wanted = name.rsplit('.').next().unwrap_or(name);
        let tokens = Tokenizer::new(&GenericDialect {}, &self.file.text).tokenize_with_location().ok()?;
        let from = (u64::from(self.query_span.line), u64::from(self.query_span.column));
        tokens
            .into_iter()
            .filter(|t| (t.span.start.line, t.span.start.column) >= from)
            .take_while(|t| t.token != Token::SemiColon)
            .find(|t| matches!(&t.token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted)))
            .map(|t| self.file.span(t.span))
    }
}

fn unknown_relation(problem: &Problem) -> Option<String> {
    let rest = problem.message.strip_prefix("unknown relation `")?;
    Some(rest.trim_end_matches('`').to_owned())
}

/// The text of the statement that starts at a place.
pub fn statement_text(file: &SourceFile, start: Span) -> String {
    let tokens = Tokenizer::new(&GenericDialect {}, &file.text).tokenize_with_location().unwrap_or_default();
    let from = (u64::from(start.line), u64::from(start.column));
    let end = tokens
        .iter()
        .filter(|t| (t.span.start.line, t.span.start.column) >= from)
        .find(|t| t.token == Token::SemiColon)
        .map(|t| (t.span.start.line, t.span.start.column));
    let mut text = String::new();
    for (number, line) in (1u64..).zip(file.text.lines()) {
        let first = if number == from.0 { from.1 as usize - 1 } else { 0 };
        let last = end.filter(|e| e.0 == number).map_or(usize::MAX, |e| e.1 as usize - 1);
        if number >= from.0 && end.is_none_or(|e| number <= e.0) {
            text.extend(line.chars().take(last).skip(first));
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}
