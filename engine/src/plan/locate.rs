//! Problems put at their place in a definition file.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Query, Select, SelectItem, SetExpr, Spanned as _, Visit, WindowFrameBound, WindowSpec, WindowType,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

use super::planner::Planner;
use super::problem::{Place, PlanResult, Problem};
use crate::sql::{Diagnostic, SourceFile, Span};

/// A query in its file: where problems with it are shown.
pub struct Located<'a> {
    pub file: &'a Arc<SourceFile>,
    pub query: &'a Query,
    pub query_span: Span,
}

/// Why a query could not be planned.
pub struct Failure {
    pub diagnostics: Vec<Diagnostic>,
    /// The query without its columns that fail, and which columns those are that it still has: there may be more wrong with them.
    pub rest: Option<(LogicalPlan, Vec<usize>)>,
}

impl From<Failure> for Vec<Diagnostic> {
    fn from(failure: Failure) -> Self {
        failure.diagnostics
    }
}

impl Located<'_> {
    /// Puts problems at their places; what is said twice of one place is said once.
    pub fn diagnostics(&self, problems: Vec<Problem>) -> Vec<Diagnostic> {
        let mut all: Vec<Diagnostic> = vec![];
        for diagnostic in problems.into_iter().map(|p| self.diagnostic(p)) {
            if !all.contains(&diagnostic) {
                all.push(diagnostic);
            }
        }
        all
    }

    fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let text = Text::of(self);
        let item = problem.column.and_then(|index| self.item(index));
        let within = item.as_ref().map(|item| text.item(item));
        let found = match &problem.place {
            Place::At(line, column, length) => Some(Span::new(*line, *column, *length)),
            Place::Name(name) => {
                let here = within.clone().and_then(|range| text.word(range, name));
                here.or_else(|| text.word(text.all(), name)).map(|token| self.file.span(token.span))
            }
            Place::Clause(word) => {
                let outside = text.outside().find(|token| is_word(token, word));
                outside.or_else(|| text.word(text.all(), word)).map(|token| self.file.span(token.span))
            }
            Place::From(name) => {
                let after = text.word(text.from()..text.tokens.len(), name);
                after.or_else(|| text.word(text.all(), name)).map(|token| self.file.span(token.span))
            }
            Place::Window { function, word } => {
                let windows = match &item {
                    Some(item) => windows(*item, function),
                    None => windows(self.query, function),
                };
                text.in_window(&windows, word).map(|token| self.file.span(token.span))
            }
            Place::Subquery => text.subquery(within).map(|token| self.file.span(token.span)),
            Place::Item | Place::Query => None,
        };
        let span =
            found.or_else(|| item.and_then(|item| text.span(self.file, text.item(item)))).unwrap_or(self.query_span);
        let mut diagnostic = Diagnostic::new(self.file, span, problem.message).maybe_hint(problem.hint);
        if let Some(expected) = problem.expected {
            diagnostic = diagnostic.expected(expected);
        }
        diagnostic
    }

    /// Plans the query. When that fails, plans each column of its outermost SELECT by itself, so that every
    /// column with an error is reported, at its place; and all of them without WHERE, if that fails too.
    pub fn plan(&self, planner: &Planner) -> Result<LogicalPlan, Failure> {
        let whole = match self.attempt(planner, self.query) {
            Ok(plan) => return Ok(plan),
            Err(problem) => problem,
        };
        let mut problems = vec![];
        let mut query = self.query.clone();
        let mut columns = self.columns(planner, &query);
        if columns.iter().all(|c| c.as_ref() == Err(&whole)) {
            problems.push(whole.clone());
            let filtered = select_mut(&mut query).is_some_and(|select| select.selection.take().is_some());
            columns = if filtered { self.columns(planner, &query) } else { vec![] };
            // FROM is as broken as before: nothing can be said of the columns.
            if columns.iter().all(|c| c.as_ref() == Err(&whole)) {
                columns.clear();
            }
        }
        let good: Vec<usize> = columns.iter().enumerate().filter(|(_, c)| c.is_ok()).map(|(i, _)| i).collect();
        for (index, column) in columns.into_iter().enumerate() {
            if let Err(problem) = column
                && !problems.contains(&problem)
            {
                problems.push(problem.at_column(Some(index)));
            }
        }
        if problems.is_empty() {
            problems.push(whole);
        }
        if let Some(select) = select_mut(&mut query) {
            let kept = std::mem::take(&mut select.projection);
            select.projection =
                kept.into_iter().enumerate().filter(|(i, _)| good.contains(i)).map(|(_, c)| c).collect();
        }
        let rest = if good.is_empty() { None } else { self.attempt(planner, &query).ok() };
        Err(Failure { diagnostics: self.diagnostics(problems), rest: rest.map(|plan| (plan, good)) })
    }

    /// What planning each column of a query by itself finds wrong.
    fn columns(&self, planner: &Planner, query: &Query) -> Vec<PlanResult<()>> {
        let count = select(query).map_or(0, |s| s.projection.len());
        let attempt = |index| {
            let mut alone = query.clone();
            if let Some(select) = select_mut(&mut alone) {
                select.projection = vec![select.projection.swap_remove(index)];
            }
            self.attempt(planner, &alone).map(drop)
        };
        (0..count).map(attempt).collect()
    }

    fn attempt(&self, planner: &Planner, query: &Query) -> PlanResult<LogicalPlan> {
        let planned = planner.parsed(query).map_err(Problem::from).and_then(|plan| {
            super::join::check_types(&plan)?;
            super::windows::check_bounds(&plan)?;
            Ok(planner.analysed(plan)?)
        });
        planned.map_err(|p| match unknown_relation(&p) {
            Some(name) => {
                if let Some(why) = planner.refusal(&name) {
                    return Problem { message: format!("`{name}` {why}"), ..p };
                }
                let own = self.query.with.iter().flat_map(|w| &w.cte_tables).map(|t| t.alias.name.value.as_str());
                let known: Vec<&str> = own.chain(planner.names()).collect();
                let p = match known.as_slice() {
                    [] => p.expected("a relation that is defined"),
                    known => p.expected(format!("one of {}", known.join(", "))),
                };
                if name.contains('.') {
                    return p.hint("relations have names of one part");
                }
                match crate::sql::did_you_mean(&name, known) {
                    Some(hint) => p.hint(hint),
                    None => p,
                }
            }
            None => p,
        })
    }

    /// Columns can be counted up to the first `*`.
    fn item(&self, index: usize) -> Option<&SelectItem> {
        let items = &select(self.query)?.projection;
        let star = items.iter().position(is_star).unwrap_or(items.len());
        items.get(index).filter(|_| index < star)
    }

    /// Whether the outermost SELECT has a `*`.
    pub fn has_star(&self) -> bool {
        select(self.query).is_some_and(|s| s.projection.iter().any(is_star))
    }
}

fn select(query: &Query) -> Option<&Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

fn select_mut(query: &mut Query) -> Option<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

fn is_star(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(_, _))
}

fn is_word(token: &TokenWithSpan, wanted: &str) -> bool {
    match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(wanted),
        Token::SingleQuotedString(text) => wanted.strip_prefix('\'') == Some(text),
        Token::Mul => wanted == "*",
        _ => false,
    }
}

fn expression_span(item: &SelectItem) -> TokenSpan {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.span(),
        other => other.span(),
    }
}

/// The windows of the calls of a function.
fn windows(of: &impl Visit, function: &str) -> Vec<WindowSpec> {
    let mut found = vec![];
    let _ = visit_expressions(of, |expr| {
        if let Expr::Function(call) = expr
            && call.name.0.last().is_some_and(|name| name.to_string().eq_ignore_ascii_case(function))
            && let Some(WindowType::WindowSpec(spec)) = &call.over
        {
            found.push(spec.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

/// A query's tokens.
struct Text {
    tokens: Vec<TokenWithSpan>,
}

impl Text {
    fn of(located: &Located<'_>) -> Self {
        let tokens =
            Tokenizer::new(&GenericDialect {}, &located.file.text).tokenize_with_location().unwrap_or_default();
        let from = Location::new(located.query_span.line.into(), located.query_span.column.into());
        let tokens = tokens.into_iter().filter(|t| t.span.start >= from && !matches!(t.token, Token::Whitespace(_)));
        Self { tokens: tokens.take_while(|t| t.token != Token::SemiColon).collect() }
    }

    fn all(&self) -> Range<usize> {
        0..self.tokens.len()
    }

    /// The first token in a range that is this word (or `*`, or a string after a `'`), or the last part of this dotted name.
    fn word(&self, range: Range<usize>, name: &str) -> Option<&TokenWithSpan> {
        let wanted = if name.starts_with('\'') { name } else { name.rsplit('.').next().unwrap_or(name) };
        self.tokens.get(range)?.iter().find(|t| is_word(t, wanted))
    }

    /// The SELECT of an expression's subquery: in a range, or after WHERE, or the last one.
    fn subquery(&self, range: Option<Range<usize>>) -> Option<&TokenWithSpan> {
        let condition = self.outside().find(|t| is_word(t, "where")).map(|t| self.at(t.span.start)..self.tokens.len());
        let ranges = range.into_iter().chain(condition);
        let found = ranges.into_iter().find_map(|range| self.word(range, "select"));
        found.or_else(|| self.tokens.iter().rfind(|t| is_word(t, "select")))
    }

    /// The tokens outside all parentheses.
    fn outside(&self) -> impl Iterator<Item = &TokenWithSpan> {
        let mut depth = 0_i32;
        self.tokens.iter().filter(move |t| {
            match t.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// Where the outermost FROM is.
    fn from(&self) -> usize {
        self.outside().find(|t| is_word(t, "from")).map_or(0, |from| self.at(from.span.start))
    }

    /// A range of tokens, as far as it stands on its first line.
    fn span(&self, file: &SourceFile, range: Range<usize>) -> Option<Span> {
        let tokens = self.tokens.get(range)?;
        let first = file.span(tokens.first()?.span);
        let last = tokens.iter().take_while(|t| t.span.start.line == u64::from(first.line)).last()?;
        Some(first.to(file.span(last.span)))
    }

    /// The tokens of a column of a SELECT: up to the next comma, or FROM.
    fn item(&self, item: &SelectItem) -> Range<usize> {
        let start = self.at(expression_span(item).start);
        let mut depth = 0;
        for (index, token) in self.tokens.iter().enumerate().skip(start) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return start..index,
                Token::RParen => depth -= 1,
                Token::Comma if depth == 0 => return start..index,
                Token::Word(word) if depth == 0 && word.value.eq_ignore_ascii_case("from") => return start..index,
                _ => {}
            }
        }
        start..self.tokens.len()
    }

    /// A word in the first of some windows that has it; where none has, the start of the first.
    fn in_window(&self, windows: &[WindowSpec], word: &str) -> Option<&TokenWithSpan> {
        let places: Vec<Range<usize>> =
            windows.iter().flat_map(anchors).filter_map(|anchor| self.around(anchor)).collect();
        let found = places.iter().find_map(|place| self.word(place.clone(), word));
        found.or_else(|| self.tokens.get(places.first()?.start))
    }

    /// What stands in the innermost parentheses around a place.
    fn around(&self, place: Location) -> Option<Range<usize>> {
        let middle = self.at(place);
        let mut depth = 0;
        let open = (0..middle).rev().find(|i| {
            match self.tokens[*i].token {
                Token::RParen => depth += 1,
                Token::LParen if depth == 0 => return true,
                Token::LParen => depth -= 1,
                _ => {}
            }
            false
        })?;
        let mut depth = 0;
        let close = (open + 1..self.tokens.len()).find(|i| {
            match self.tokens[*i].token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return true,
                Token::RParen => depth -= 1,
                _ => {}
            }
            false
        });
        Some(open + 1..close.unwrap_or(self.tokens.len()))
    }

    fn at(&self, place: Location) -> usize {
        self.tokens.partition_point(|t| t.span.start < place)
    }
}

/// Places inside a window's own parentheses, the frame's first: a window that extends another is in two.
fn anchors(spec: &WindowSpec) -> Vec<Location> {
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) => Some(expr.span()),
        _ => None,
    };
    let frame =
        spec.window_frame.iter().flat_map(|f| [Some(&f.start_bound), f.end_bound.as_ref()]).flatten().filter_map(bound);
    let order = spec.order_by.iter().map(|o| o.expr.span());
    let spans = frame.chain(order).chain(spec.partition_by.iter().map(|p| p.span()));
    spans.map(|s| s.start).filter(|start| start.line > 0).collect()
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
