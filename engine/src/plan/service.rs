//! A feature service: ordinary SQL over a request row joined to feature views.
//!
//! One plan, two runs: a REST call runs the [`Pipeline`] over the call's rows, with a lookup for each view; a training
//! set runs the logical plan over the spine, with a point-in-time join for each view (see `batch`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{self, Ident, Query, visit_expressions};

use super::FeatureView;
use super::pipeline::{Builder, Kind, Pipeline, mentions, nullable};
use super::problem::Problem;
use super::timestamp_type;
pub use crate::sql::AS_OF;

/// The relation that stands for the request's rows.
pub const REQUEST: &str = "request";

#[derive(Debug, Clone)]
pub struct FeatureService {
    pub name: String,
    /// The columns of a request row.
    pub signature: SchemaRef,
    /// The columns of `request`: the signature's, and behind them [`AS_OF`] if the query names it.
    pub request: SchemaRef,
    /// The columns of the answer.
    pub schema: SchemaRef,
    pub pipeline: Pipeline,
    pub plan: LogicalPlan,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub docs: BTreeMap<String, String>,
    pub sql: String,
}

impl FeatureService {
    /// Whether the query names the request's instant.
    pub fn reads_instant(&self) -> bool {
        self.request.fields().len() > self.signature.fields().len()
    }

    /// The feature views that it reads, each once, with the alias of the first join.
    pub fn views(&self) -> Vec<(&Arc<FeatureView>, &str)> {
        let mut views: Vec<(&Arc<FeatureView>, &str)> = vec![];
        for join in self.pipeline.view_joins() {
            if !views.iter().any(|(v, _)| v.name == join.view.name) {
                views.push((&join.view, &join.alias));
            }
        }
        views
    }
}

/// The columns of `request` for a query.
pub fn request(signature: &SchemaRef, query: &Query) -> SchemaRef {
    let is_instant = |name: &Ident| match name.quote_style {
        Some(_) => name.value == AS_OF,
        None => name.value.eq_ignore_ascii_case(AS_OF),
    };
    let named = visit_expressions(query, |expr| {
        let name = match expr {
            ast::Expr::Identifier(name) => Some(name),
            ast::Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        if name.is_some_and(is_instant) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if named.is_continue() {
        return signature.clone();
    }
    let instant = Arc::new(Field::new(AS_OF, timestamp_type(), true));
    Arc::new(Schema::new(signature.fields().iter().cloned().chain([instant]).collect::<Vec<_>>()))
}

/// The row's number, from 0, in a training set's plan.
pub(crate) const ROW: &str = "__row";
/// The row's instant, there.
pub(crate) const INSTANT: &str = "__instant";

/// The hidden column that carries a column of the spine, there.
pub(crate) fn spine_column(index: usize) -> String {
    format!("{SPINE}{index}")
}

const SPINE: &str = "__spine_";

/// A column anywhere in the plan whose name a training set needs for its own.
fn reserved_column(plan: &LogicalPlan) -> Option<String> {
    let reserved = |name: &str| name == ROW || name == INSTANT || name.starts_with(SPINE);
    let mut found = None;
    let _ = plan.apply(|node| {
        found = node.schema().fields().iter().map(|f| f.name()).find(|name| reserved(name)).cloned();
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// The pipeline of a service's analysed plan.
pub fn compile(plan: &LogicalPlan, kind: &dyn Fn(&str) -> Kind) -> Result<(Pipeline, SchemaRef), Vec<Problem>> {
    if !mentions(plan, REQUEST) {
        let problem = Problem::new("a feature service must read its request rows").expected("FROM request LEFT JOIN …");
        return Err(vec![problem.at_clause("from")]);
    }
    if let Some(name) = reserved_column(plan) {
        let problem = Problem::new(format!("the column name `{name}` is reserved for training sets"))
            .expected("any name but __row, __instant and __spine_0, __spine_1, …");
        return Err(vec![problem.at_name(name)]);
    }
    let steps = Builder { base: REQUEST, instant: AS_OF, kind, one_row_each: true }.steps(plan).map_err(|p| vec![p])?;
    let output = nullable(plan.schema().as_arrow());
    let mut problems = super::projection::unnamed(plan, &output);
    for (i, field) in output.fields().iter().enumerate() {
        if output.fields().iter().take(i).any(|f| f.name() == field.name()) {
            let problem = Problem::new(format!("two columns are named `{}`", field.name()));
            problems.push(problem.hint("give one of them another name with AS").at_column(Some(i)));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok((Pipeline { steps, output: output.clone() }, output))
}
