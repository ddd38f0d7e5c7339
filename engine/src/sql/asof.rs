//! `ASOF JOIN t MATCH_CONDITION (instant >= t.timestamp) ON …`, in the words that DataFusion 56 plans.
//!
//! DataFusion 55 refuses to plan them. After [`resolve_asof_joins`] each such join is a LEFT JOIN with one more condition
//! beside those of its ON: a call of [`MATCH_CONDITION`] with the two columns, which only `plan` can give a meaning. What one
//! statement alone shows to be wrong is reported here.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Join,
    JoinConstraint, JoinOperator, ObjectName, Query, Select, Spanned as _, TableFactor, VisitMut, VisitorMut,
};

use super::diagnostic::{Diagnostic, SourceFile};

/// The function of an instant and a table's timestamp that stands for an ASOF JOIN. In capitals: unquoted it can't be called.
pub const MATCH_CONDITION: &str = "MATCH_CONDITION";

/// The column of `request` with the instant that it is answered for.
pub const AS_OF: &str = "as_of";

/// The one form that there is, for messages.
pub const EXPECTED: &str = "MATCH_CONDITION (<instant> >= <the table's timestamp>)";

/// Turns every ASOF JOIN of a query into a LEFT JOIN with a [`MATCH_CONDITION`]. Without errors none remains.
pub fn resolve_asof_joins(query: &mut Query, file: &Arc<SourceFile>) -> Vec<Diagnostic> {
    let mut resolver = Resolver { file, errors: Vec::new() };
    let _never_breaks = query.visit(&mut resolver);
    resolver.errors
}

struct Resolver<'a> {
    file: &'a Arc<SourceFile>,
    errors: Vec<Diagnostic>,
}

impl VisitorMut for Resolver<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(|from| self.joins(&mut from.joins));
        ControlFlow::Continue(())
    }

    /// Joins in parentheses.
    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            self.joins(&mut table_with_joins.joins);
        }
        ControlFlow::Continue(())
    }
}

impl Resolver<'_> {
    fn joins(&mut self, joins: &mut [Join]) {
        for join in joins {
            if let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator {
                match self.condition(match_condition, constraint) {
                    Ok(on) => join.join_operator = JoinOperator::LeftOuter(JoinConstraint::On(on)),
                    Err(error) => self.errors.push(error),
                }
            }
        }
    }

    /// What the LEFT JOIN asks.
    fn condition(&self, matching: &Expr, constraint: &JoinConstraint) -> Result<Expr, Diagnostic> {
        let matching = unnested(matching);
        let error = |message: &str| Diagnostic::new(self.file, self.file.span(matching.span()), message);
        let Expr::BinaryOp { left, op, right } = matching else {
            return Err(error("MATCH_CONDITION takes one comparison").expected(EXPECTED));
        };
        let (left, right) = (unnested(left), unnested(right));
        match op {
            BinaryOperator::GtEq if is_column(left) && is_column(right) => {}
            BinaryOperator::GtEq => {
                let error = error("MATCH_CONDITION compares two columns, not expressions").expected(EXPECTED);
                return Err(error.hint("how old a row may be is the table's `max_age` option"));
            }
            BinaryOperator::LtEq => {
                let hint = format!("write it the other way round: MATCH_CONDITION ({right} >= {left})");
                return Err(error("MATCH_CONDITION takes `>=` alone").expected(EXPECTED).hint(hint));
            }
            BinaryOperator::And | BinaryOperator::Or => {
                let error = error("MATCH_CONDITION takes one comparison").expected(EXPECTED);
                return Err(error.hint("equalities go into ON; how old a row may be is the table's `max_age` option"));
            }
            _ => {
                let error = error("MATCH_CONDITION takes `>=` alone").expected(EXPECTED);
                return Err(error.hint("a row holds from its timestamp on, that instant included"));
            }
        }
        match constraint {
            JoinConstraint::On(on) => Ok(Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(on.clone()))),
                op: BinaryOperator::And,
                right: Box::new(call(left, right)),
            }),
            JoinConstraint::None => Err(error("the ASOF JOIN has no equality to look rows up by")
                .expected("MATCH_CONDITION (…) ON <table's column> = <row's column>")),
            JoinConstraint::Using(_) | JoinConstraint::Natural => Err(error("an ASOF JOIN states its equalities")
                .expected("MATCH_CONDITION (…) ON <table's column> = <row's column>")),
        }
    }
}

fn call(left: &Expr, right: &Expr) -> Expr {
    let argument = |expr: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone()));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', MATCH_CONDITION)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(left), argument(right)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}
