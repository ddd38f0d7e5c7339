//! A feature service's and a training set's facts.

use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;

use super::facts::{About, Column, Lookup, ServiceFacts, TrainingFacts};
use super::plans;
use crate::plan::join::{JoinWords, as_view, join_words};
use crate::plan::pipeline::scans;
use crate::plan::words::{qualified_sql, sql_type};
use crate::plan::{FeatureService, Project, TrainingSet};

pub fn facts(project: &Project, service: &FeatureService) -> Result<ServiceFacts> {
    let missing = service
        .pipeline
        .table_joins()
        .flat_map(|j| &j.tables)
        .find(|t| project.tables.get(*t).is_some_and(|t| !t.present()));
    Ok(ServiceFacts {
        about: About {
            name: service.name.clone(),
            description: service.description.clone(),
            owner: service.owner.clone(),
        },
        request: columns(&service.signature, |_| None),
        columns: described(project, service),
        lookups: lookups(project, &service.plan),
        request_plan: service.plan.display_indent().to_string(),
        batch_plan: match missing {
            Some(table) => format!("not known yet: table {table} has no files"),
            None => plans::service(project, service)?,
        },
    })
}

pub fn training_set(project: &Project, set: &TrainingSet) -> Result<TrainingFacts> {
    let spine = set.spine.schema();
    let own = columns(spine.as_arrow(), |_| None);
    let added = described(project, &set.service).into_iter().filter(|c| !own.iter().any(|o| o.name == c.name));
    let missing = set
        .service
        .pipeline
        .table_joins()
        .flat_map(|j| &j.tables)
        .find(|t| project.tables.get(*t).is_some_and(|t| !t.present()));
    let batch_plan = match missing {
        Some(table) => format!("not known yet: table {table} has no files"),
        None => plans::training_set(project, set)?,
    };
    Ok(TrainingFacts {
        about: About { name: set.name.clone(), description: set.description.clone(), owner: set.owner.clone() },
        service: set.service.name.clone(),
        timestamp: set.timestamp.clone(),
        spine_plan: set.spine.display_indent().to_string(),
        batch_plan,
        columns: {
            let mut all = columns(spine.as_arrow(), |_| None);
            all.extend(added);
            all
        },
    })
}

/// The answer's columns; one that is a view's feature unchanged has its description if it has none of its own.
fn described(project: &Project, service: &FeatureService) -> Vec<Column> {
    let exprs = match &service.plan {
        LogicalPlan::Projection(projection) => projection.expr.as_slice(),
        _ => &[],
    };
    let mut all = columns(&service.schema, |name| service.docs.get(name).cloned());
    for (column, expr) in all.iter_mut().zip(exprs) {
        let expr = expr.clone().unalias();
        if let datafusion::logical_expr::Expr::Column(c) = &expr {
            column.expression = Some(c.flat_name());
            let mut lookups = service.pipeline.view_joins();
            let view = c.relation.as_ref().and_then(|r| lookups.find(|j| j.alias == r.table()));
            let inherited = view.and_then(|j| project.views.get(&j.view.name)).and_then(|v| v.docs.get(&c.name));
            column.description = column.description.take().or_else(|| inherited.cloned());
        } else {
            column.expression = Some(qualified_sql(&expr));
        }
    }
    all
}

/// What the joins of a plan look up, in their order.
pub fn lookups(project: &Project, plan: &LogicalPlan) -> Vec<Lookup> {
    let mut lookups = vec![];
    gather(project, plan, &mut lookups);
    lookups
}

fn gather(project: &Project, plan: &LogicalPlan, lookups: &mut Vec<Lookup>) {
    for input in plan.inputs() {
        // A join's right side is what is looked up.
        let right = matches!(plan, LogicalPlan::Join(join) if std::ptr::eq(input, join.right.as_ref()));
        if !right {
            gather(project, input, lookups);
        }
    }
    let LogicalPlan::Join(join) = plan else { return };
    let kind = |name: &str| project.kind(name);
    let Ok(JoinWords { on, as_of }) = join_words(join, &kind) else { return };
    let lookup = match as_view(&join.right, &kind) {
        Some((view, alias)) => Lookup { alias, relation: view.name.clone(), of: "feature view", on, as_of },
        None => {
            let relation = scans(&join.right).join(", ");
            let alias = match join.right.as_ref() {
                LogicalPlan::SubqueryAlias(alias) => alias.alias.table().to_owned(),
                _ => relation.clone(),
            };
            Lookup { alias, relation, of: "table", on, as_of }
        }
    };
    lookups.push(lookup);
}

fn columns(schema: &Schema, description: impl Fn(&str) -> Option<String>) -> Vec<Column> {
    let column = |f: &arrow::datatypes::FieldRef| Column {
        name: f.name().clone(),
        data_type: sql_type(f.data_type()),
        expression: None,
        description: description(f.name()),
    };
    schema.fields().iter().map(column).collect()
}
