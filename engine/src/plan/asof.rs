//! Joins to tables with history, as of an instant.
//!
//! ```sql
//! ASOF JOIN prices p MATCH_CONDITION (o.event_time >= p.since) ON p.sku = o.sku
//! ```
//!
//! Guarantee: the instant is the one that the row is evaluated at, never one that it states: the event's below windows, the
//! request's in a service. And a table with history is joined in no other way. So no row is looked up that came later.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Join, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::join::equi_pairs;
use super::pipeline::{Builder, Kind, scans};
use super::problem::{PlanResult, Problem};
use super::view::unalias;
use super::words::qualified_sql;
use crate::catalog::History;
use crate::sql::MATCH_CONDITION;

/// Stands in a plan for what an ASOF JOIN matches by. It is taken out of the join that it is in, and never runs.
pub static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    // Volatile: as such it is refused wherever it doesn't come from an ASOF JOIN.
    Arc::new(ScalarUDF::from(MatchCondition { signature: Signature::any(2, Volatility::Volatile) }))
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct MatchCondition {
    signature: Signature,
}

impl ScalarUDFImpl for MatchCondition {
    fn name(&self) -> &str {
        MATCH_CONDITION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{MATCH_CONDITION} outside of an ASOF JOIN")
    }
}

/// The two columns that a MATCH_CONDITION compares.
#[derive(Debug, Clone)]
pub struct Match {
    pub instant: Expr,
    pub timestamp: Expr,
}

/// What else a join's condition asks beside its equalities: the MATCH_CONDITION of an ASOF JOIN, and the rest.
pub fn matching(residual: Option<Expr>) -> (Option<Match>, Option<Expr>) {
    let mut found = None;
    let mut rest = vec![];
    for conjunct in residual.into_iter().flat_map(split_conjunction_owned) {
        match conjunct {
            Expr::ScalarFunction(call) if call.name() == MATCH_CONDITION => match call.args.as_slice() {
                [instant, timestamp] => {
                    found = Some(Match { instant: instant.clone(), timestamp: timestamp.clone() });
                }
                _ => rest.push(Expr::ScalarFunction(call)),
            },
            other => rest.push(other),
        }
    }
    (found, conjunction(rest))
}

/// Whether a plan has an ASOF JOIN.
pub fn stands_in(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(matches!(e, Expr::ScalarFunction(call) if call.name() == MATCH_CONDITION)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    })
    .unwrap_or(false)
}

/// The table with history that a join's right side is, if it is one, and its alias.
pub fn as_history(right: &LogicalPlan, kind: &dyn Fn(&str) -> Kind) -> Option<(History, String)> {
    match right {
        LogicalPlan::SubqueryAlias(alias) => {
            let (history, _) = as_history(&alias.input, kind)?;
            Some((history, alias.alias.table().to_owned()))
        }
        LogicalPlan::TableScan(scan) => match kind(scan.table_name.table()) {
            Kind::Table(history) => Some((history?, scan.table_name.table().to_owned())),
            _ => None,
        },
        _ => None,
    }
}

/// Refuses an ASOF JOIN to anything but a table with history, or by anything but the two instants; and a table with history in any
/// other join. What is wrong with other joins is not asked here.
pub fn check(join: &Join, builder: &Builder<'_>) -> PlanResult<()> {
    let kinds: Vec<(String, Kind)> =
        scans(&join.right).into_iter().map(|name| (name.clone(), (builder.kind)(&name))).collect();
    if kinds.iter().any(|(_, kind)| matches!(kind, Kind::Source | Kind::Request)) {
        return Ok(());
    }
    let (pairs, residual) = equi_pairs(join)?;
    let (found, residual) = matching(residual);
    let joined = as_history(&join.right, builder.kind);
    let Some(found) = found else {
        let past = kinds.iter().find(|(_, kind)| matches!(kind, Kind::Table(Some(_))));
        return past.map_or(Ok(()), |(name, _)| {
            let problem = Problem::new(format!(
                "`{name}` is a table with history: without an instant its present would leak into the past"
            ));
            Err(match &joined {
                Some((history, alias)) => {
                    problem.hint(asof_join(name, alias, history, join, &pairs, builder)).at_from(name)
                }
                None => problem
                    .hint(format!("join it by itself: ASOF JOIN {name} MATCH_CONDITION (…) ON …"))
                    .at_from(called(&join.right).unwrap_or(name)),
            })
        });
    };
    let name = kinds.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let Some((history, alias)) = joined else {
        return Err(not_history(&name, &kinds, &join.right));
    };
    let expected = condition(&alias, &history, join, builder);
    let is_timestamp =
        matches!(&found.timestamp, Expr::Column(c) if c.name == history.timestamp && join.right.schema().has_column(c));
    if !is_timestamp {
        return Err(Problem::new(format!(
            "MATCH_CONDITION compares `{}`, which is not the timestamp of `{name}`",
            qualified_sql(&found.timestamp)
        ))
        .expected(expected)
        .at_column_of(&found.timestamp));
    }
    if lineage(&found.instant, &join.left).as_deref() != Some(builder.instant) {
        let instant = match builder.one_row_each {
            true => "the request's instant".to_owned(),
            false => format!("the event's instant: the timestamp of `{}`", builder.base),
        };
        return Err(Problem::new(format!(
            "MATCH_CONDITION compares `{}`, which is not {instant}",
            qualified_sql(&found.instant)
        ))
        .expected(expected)
        .at_column_of(&found.instant));
    }
    match residual {
        Some(residual) => Err(Problem::new(format!(
            "the ASOF JOIN to `{name}` has a condition that is not an equality with a column of the row: {}",
            qualified_sql(&residual)
        ))
        .expected("ON <table's column> = <row's column> AND …")
        .hint("use a CASE over its columns instead")
        .at_from(&name)),
        None => Ok(()),
    }
}

/// An ASOF JOIN to something else.
fn not_history(name: &str, kinds: &[(String, Kind)], right: &LogicalPlan) -> Problem {
    let scan = |plan: &LogicalPlan| matches!(plan, LogicalPlan::TableScan(_));
    let whole = scan(right) || matches!(right, LogicalPlan::SubqueryAlias(alias) if scan(&alias.input));
    match kinds.first() {
        Some((_, Kind::View(_))) if whole => {
            Problem::new(format!("`{name}` is a feature view: a join to it is as of the request's instant already"))
                .expected(format!("LEFT JOIN {name} ON …"))
                .at_from(name)
        }
        Some((_, Kind::Table(None))) if whole => {
            Problem::new(format!("table `{name}` has no history: nothing says from when on its rows hold"))
                .expected(format!("LEFT JOIN {name} ON …"))
                .hint("or name the column that does: OPTIONS (timestamp '<column>') in its CREATE EXTERNAL TABLE")
                .at_from(name)
        }
        _ => Problem::new("an ASOF JOIN takes a table with history as it is, not a query")
            .expected("ASOF JOIN <table> MATCH_CONDITION (…) ON …")
            .hint("filter and compute in the SELECT around the join")
            .at_from(called(right).unwrap_or(name)),
    }
}

/// What a query calls a relation.
fn called(relation: &LogicalPlan) -> Option<&str> {
    match relation {
        LogicalPlan::SubqueryAlias(alias) => Some(alias.alias.table()),
        _ => None,
    }
}

/// The ASOF JOIN that should stand in place of a plain one.
fn asof_join(
    name: &str,
    alias: &str,
    history: &History,
    join: &Join,
    pairs: &[(Expr, Expr)],
    builder: &Builder<'_>,
) -> String {
    let aliased = if name == alias { name.to_owned() } else { format!("{name} {alias}") };
    let on: Vec<String> =
        pairs.iter().map(|(left, right)| format!("{} = {}", qualified_sql(right), qualified_sql(left))).collect();
    let on = if on.is_empty() { "…".to_owned() } else { on.join(" AND ") };
    format!("write ASOF JOIN {aliased} {} ON {on}", condition(alias, history, join, builder))
}

fn condition(alias: &str, history: &History, join: &Join, builder: &Builder<'_>) -> String {
    let columns = join.left.schema().iter();
    let column = |(relation, field): (Option<&_>, &Arc<_>)| Expr::Column(Column::from((relation, field)));
    let instant = columns.map(column).find(|c| lineage(c, &join.left).as_deref() == Some(builder.instant));
    // A query that doesn't name `as_of` doesn't have it yet.
    let instant = instant.map_or_else(|| format!("{}.{}", builder.base, builder.instant), |c| qualified_sql(&c));
    let timestamp = Expr::Column(Column::new(Some(alias), &history.timestamp));
    format!("MATCH_CONDITION ({instant} >= {})", qualified_sql(&timestamp))
}

/// The column of the base relation that a row-level expression is, unchanged.
pub fn lineage(expr: &Expr, plan: &LogicalPlan) -> Option<String> {
    let Expr::Column(column) = unalias(expr) else { return None };
    match plan {
        LogicalPlan::TableScan(_) => Some(column.name.clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            let (qualifier, field) = alias.input.schema().qualified_field(index);
            lineage(&Expr::Column(Column::new(qualifier.cloned(), field.name())), &alias.input)
        }
        LogicalPlan::Filter(filter) => lineage(expr, &filter.input),
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            lineage(projection.expr.get(index)?, &projection.input)
        }
        LogicalPlan::Join(join) => {
            join.left.schema().maybe_index_of_column(column)?;
            lineage(expr, &join.left)
        }
        _ => None,
    }
}
