//! The batch plans that `explain` shows: made as a training set's is, over an empty spine and no events.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::batch::{self, Spine, TrainingError};
use crate::catalog::Source;
use crate::offline::Past;
use crate::plan::planner::{Planner, Relation};
use crate::plan::{FeatureService, FeatureView, Project, REQUEST, TrainingSet, service, timestamp_type};
use crate::source::event_schema;

/// The spine's column with the instant, where nobody has named one.
const INSTANT: &str = "as_of";

/// A view over a spine of its keys.
pub fn view(project: &Project, view: &FeatureView) -> Result<String> {
    let signature: SchemaRef = Arc::new(Schema::new(view.keys.clone()));
    let on: Vec<String> = view.keys.iter().map(|k| format!("v.{0} = {REQUEST}.{0}", identifier(k.name()))).collect();
    let features: Vec<String> = view.features().map(|f| format!("v.{}", identifier(f.name()))).collect();
    let sql = format!(
        "SELECT {} FROM {REQUEST} LEFT JOIN {} v ON {}",
        features.join(", "),
        identifier(&view.name),
        on.join(" AND ")
    );
    let parsed = Parser::parse_sql(&GenericDialect {}, &sql).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let Some(Statement::Query(query)) = parsed.into_iter().next() else {
        return datafusion::common::internal_err!("not a query: {sql}");
    };
    let planner = Planner::default()
        .with(REQUEST, Relation::Rows(signature.clone()))
        .with(&view.name, Relation::Rows(view.schema.clone()));
    let plan = planner.plan(&query)?;
    let (pipeline, schema) = service::compile(&plan, &|name| project.kind(name)).map_err(|problems| {
        DataFusionError::Plan(problems.into_iter().map(|p| p.message).collect::<Vec<_>>().join("; "))
    })?;
    let alone = FeatureService {
        name: view.name.clone(),
        signature: signature.clone(),
        request: signature.clone(),
        schema,
        pipeline,
        plan,
        description: None,
        owner: None,
        docs: Default::default(),
        sql,
    };
    over(project, &alone, &with_instant(&signature, INSTANT), INSTANT)
}

/// A service over a spine of its request's columns.
pub fn service(project: &Project, service: &FeatureService) -> Result<String> {
    let name = if service.schema.field_with_name(INSTANT).is_ok() { "__as_of" } else { INSTANT };
    over(project, service, &with_instant(&service.signature, name), name)
}

/// A training set's service over its own spine.
pub fn training_set(project: &Project, set: &TrainingSet) -> Result<String> {
    over(project, &set.service, set.spine.schema().inner(), &set.timestamp)
}

fn over(project: &Project, service: &FeatureService, spine: &SchemaRef, timestamp: &str) -> Result<String> {
    let empty = Arc::new(EmptyExec::new(spine.clone()));
    let plan = Spine::new(service, empty, timestamp)
        .and_then(|spine| batch::training_plan(project, service, &spine, &no_events, None));
    match plan {
        Ok(plan) => Ok(optimised(plan)?.display_indent().to_string()),
        Err(TrainingError::Plan(e)) => Err(e),
        // The spine is what is wrong: another one may do.
        Err(other) => Ok(format!("none over this spine: {other}")),
    }
}

/// As it runs.
fn optimised(plan: LogicalPlan) -> Result<LogicalPlan> {
    batch::session().state().optimize(&plan)
}

fn no_events(source: &Source) -> Result<Past> {
    Ok(Past::whole(Arc::new(EmptyTable::new(event_schema(&source.schema)))))
}

fn with_instant(columns: &SchemaRef, name: &str) -> SchemaRef {
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(name, timestamp_type(), true)));
    Arc::new(Schema::new(fields))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
