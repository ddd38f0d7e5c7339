//! A feature service: ordinary SQL over a request row joined to feature views.
//!
//! One plan, two runs: a REST call runs the [`Pipeline`] over the call's rows, with a lookup for each view; a training
//! set runs the logical plan over the spine, with a point-in-time join for each view (see `batch`).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

use super::FeatureView;
use super::pipeline::{Builder, Kind, Pipeline, mentions, nullable};
use super::problem::{PlanResult, Problem};

/// The relation that stands for the request's rows.
pub const REQUEST: &str = "request";

#[derive(Debug, Clone)]
pub struct FeatureService {
    pub name: String,
    /// The columns of a request row.
    pub signature: SchemaRef,
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

/// The pipeline of a service's analysed plan.
pub fn compile(plan: &LogicalPlan, kind: &dyn Fn(&str) -> Kind) -> PlanResult<(Pipeline, SchemaRef)> {
    if !mentions(plan, REQUEST) {
        return Err(Problem::new("a feature service must read its request rows").expected("FROM request LEFT JOIN …").at_name("from"));
    }
    let steps = Builder { base: REQUEST, kind, one_row_each: true }.steps(plan)?;
    let output = nullable(plan.schema().as_arrow());
    for (i, field) in output.fields().iter().enumerate() {
        if field.name().is_empty() || !field.name().chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(Problem::new("this column needs a name").expected("… AS <name>").at_column(Some(i)));
        }
        if output.fields().iter().filter(|f| f.name() == field.name()).count() > 1 {
            return Err(Problem::new(format!("two columns are named `{}`", field.name()))
                .hint("give one of them another name with AS")
                .at_column(Some(i)));
        }
    }
    Ok((Pipeline { steps, output: output.clone() }, output))
}
