//! A training set's plan: a service over a spine.
//!
//! The service's own logical plan is kept; its request becomes the spine, its joins to feature views become
//! point-in-time joins, and its projections and lookups its own steps. The spine's columns travel along hidden, so that
//! labels come out beside features in one pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    Expr, Extension, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, cast as cast_to, col,
};

use super::spine::{Spine, TrainingError};
use super::{PartitionBy, PointInTimeJoin, ServiceStep};
use crate::catalog::Source;
use crate::offline::Past;
use crate::plan::join::{JoinWords, as_view, join_words, step, view_keys};
use crate::plan::pipeline::{Kind, Step, project};
use crate::plan::service::{AS_OF, INSTANT, ROW, spine_column};
use crate::plan::{FeatureService, FeatureView, Problem, Project, REQUEST};
use crate::source::{META_COLUMNS, event_schema};

/// Gives a source's past as a table: the contract's columns, then `_partition`, `_offset`, `_ingested_at`.
pub type EventTables<'a> = &'a dyn Fn(&Source) -> Result<Past>;

/// A service evaluated over a spine: the spine's columns, then the service's, in the spine's order; with `by`, in that
/// order among those of one value.
pub fn training_plan(
    project: &Project,
    service: &FeatureService,
    spine: &Spine,
    events: EventTables<'_>,
    by: Option<&PartitionBy>,
) -> Result<LogicalPlan, TrainingError> {
    let table = spine.table()?;
    let hidden: Vec<String> = [ROW.to_owned(), INSTANT.to_owned()]
        .into_iter()
        .chain((0..spine.schema.fields().len()).map(spine_column))
        .collect();
    let rewrite = Rewrite { project, service, events, table, hidden };
    let plan = rewrite.plan(&service.plan)?;

    let schema = plan.schema().clone();
    let spine_schema = spine.schema.clone();
    let mut output: Vec<Expr> = vec![];
    for (i, field) in spine_schema.fields().iter().enumerate() {
        output.push(named(&schema, &spine_column(i))?.alias(field.name()));
    }
    for (i, field) in service.schema.fields().iter().enumerate() {
        let (qualifier, column) = schema.qualified_field(i);
        if spine_schema.field_with_name(field.name()).is_ok() {
            let other_instant = *field.name() == AS_OF && spine.timestamp != AS_OF;
            if passes_request(&service.plan, i, field.name()) && !other_instant {
                continue;
            }
            return Err(TrainingError::Ambiguous { column: field.name().clone(), service: service.name.clone() });
        }
        output.push(Expr::Column(Column::new(qualifier.cloned(), column.name())).alias(field.name()));
    }
    // NULLs first: they are refused, and soon.
    let by = by.map(|by| by.sorted(&output)).transpose()?.map(|by| by.sort(true, true));
    let order = by.into_iter().chain([col(ROW).sort(true, false)]).collect::<Vec<_>>();
    Ok(LogicalPlanBuilder::from(plan).sort(order)?.project(output)?.build()?)
}

/// Whether a service's column is the request's column of that name, unchanged.
fn passes_request(plan: &LogicalPlan, column: usize, name: &str) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            matches!(projection.expr.get(column), Some(Expr::Column(c)) if c.name == name && c.relation.as_ref().is_some_and(|r| is_request(plan, r)))
        }
        _ => false,
    }
}

/// Whether a relation of a service's plan is the request, under whatever alias.
fn is_request(plan: &LogicalPlan, relation: &TableReference) -> bool {
    let aliased = |node: &LogicalPlan| {
        matches!(node, LogicalPlan::SubqueryAlias(alias) if alias.alias == *relation
            && matches!(alias.input.as_ref(), LogicalPlan::TableScan(scan) if scan.table_name.table() == REQUEST))
    };
    relation.table() == REQUEST || plan.exists(|node| Ok(aliased(node))).unwrap_or(false)
}

fn named(schema: &DFSchema, name: &str) -> Result<Expr> {
    match schema.iter().find(|(_, f)| f.name() == name) {
        Some((qualifier, _)) => Ok(Expr::Column(Column::new(qualifier.cloned(), name))),
        None => plan_err!("the plan of a training set lost its column {name}"),
    }
}

fn as_planned(problem: Problem) -> DataFusionError {
    DataFusionError::Plan(problem.message)
}

/// Rewrites a service's plan over a spine.
struct Rewrite<'a> {
    project: &'a Project,
    service: &'a FeatureService,
    events: EventTables<'a>,
    table: Arc<dyn TableProvider>,
    hidden: Vec<String>,
}

impl Rewrite<'_> {
    fn plan(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.table_name.table() == REQUEST => {
                LogicalPlanBuilder::scan(REQUEST, provider_as_source(self.table.clone()), None)?.build()
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.plan(&alias.input)?;
                Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.plan(&projection.input)?;
                let hidden = self.hidden.iter().map(|name| named(input.schema(), name)).collect::<Result<Vec<_>>>()?;
                let own = projection.expr.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let exprs = projection.expr.iter().cloned().chain(hidden).collect();
                let whole = Projection::try_new(exprs, Arc::new(input))?;
                let step = project(&whole.expr, whole.input.schema(), whole.schema.as_arrow()).map_err(as_planned)?;
                self.step(whole.input.as_ref().clone(), step, format!("ServiceProjection: {own}"), &whole.schema)
            }
            LogicalPlan::Join(join) => self.join(join),
            other => plan_err!("{} in a feature service", other.display()),
        }
    }

    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        let left = self.plan(&join.left)?;
        let kind = |name: &str| -> Kind { self.project.kind(name) };
        if let Some((view, alias)) = as_view(&join.right, &kind) {
            let keys = view_keys(join, &view, &alias).map_err(as_planned)?;
            let alias = TableReference::bare(alias);
            if let Some(joined) = self.beside(&left, &view, &alias, &keys)? {
                return Ok(joined);
            }
            let instant = named(left.schema(), INSTANT)?;
            return self.point_in_time(left, vec![(view, alias)], keys, instant);
        }
        let joined = Join::try_new(
            Arc::new(left),
            join.right.clone(),
            join.on.clone(),
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        let Step::JoinTable(mut table) = step(&joined, &kind).map_err(as_planned)? else {
            return plan_err!("a join of a service to neither a view nor a table");
        };
        // What the service itself looks up, so that a file that changed meanwhile changes neither.
        let loaded = self.service.pipeline.table_joins().find(|t| t.right == table.right).and_then(|t| t.content());
        let Some(loaded) = loaded else {
            return plan_err!(
                "service {} can't run yet: dimension table {} has no files; put them at its LOCATION",
                self.service.name,
                table.tables.join(", ")
            );
        };
        table.load(loaded.clone())?;
        let JoinWords { on, as_of } = join_words(&joined, &kind).map_err(as_planned)?;
        let as_of = as_of.map_or(String::new(), |as_of| format!(", {as_of}"));
        let what = format!("TableLookup: {}, on [{on}]{as_of}", table.tables.join(", "));
        self.step(joined.left.as_ref().clone(), Step::JoinTable(table), what, &joined.schema)
    }

    /// A view in the same pass as an earlier one with the same source and keys, if there is one.
    fn beside(
        &self,
        left: &LogicalPlan,
        view: &Arc<FeatureView>,
        alias: &TableReference,
        keys: &[Expr],
    ) -> Result<Option<LogicalPlan>> {
        let LogicalPlan::Extension(Extension { node }) = left else { return Ok(None) };
        let Some(join) = node.as_any().downcast_ref::<PointInTimeJoin>() else { return Ok(None) };
        let (views, instant) = (join.views.clone(), join.instant.clone());
        if join.takes(view, keys) {
            let views = views.into_iter().chain([(view.clone(), alias.clone())]).collect();
            return self.point_in_time(join.spine.clone(), views, join.keys.clone(), instant).map(Some);
        }
        // A key that an earlier view gives must come after it.
        let below = keys.iter().flat_map(Expr::column_refs).all(|column| join.spine.schema().has_column(column));
        match self.beside(&join.spine, view, alias, keys)? {
            Some(spine) if below => self.point_in_time(spine, views, join.keys.clone(), instant).map(Some),
            _ => Ok(None),
        }
    }

    fn point_in_time(
        &self,
        spine: LogicalPlan,
        views: Vec<(Arc<FeatureView>, TableReference)>,
        keys: Vec<Expr>,
        instant: Expr,
    ) -> Result<LogicalPlan> {
        let Some((view, _)) = views.first() else { return plan_err!("a point-in-time join of no view") };
        let past = (self.events)(&view.source)?;
        let horizon = past.removed.horizon(&view.source.timestamp);
        let events = events_plan(views.iter().map(|(view, _)| view.as_ref()), past.table)?;
        let node = PointInTimeJoin::try_new(spine, events, views, keys, instant, horizon)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn step(&self, input: LogicalPlan, step: Step, what: String, output: &DFSchema) -> Result<LogicalPlan> {
        let node = ServiceStep::try_new(&self.service.name, input, step, what, output)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

/// The events of views of one source, with the columns that they read, and the platform's own.
pub(super) fn events_plan<'a>(
    views: impl IntoIterator<Item = &'a FeatureView>,
    table: Arc<dyn TableProvider>,
) -> Result<LogicalPlan> {
    let views: Vec<&FeatureView> = views.into_iter().collect();
    let Some(view) = views.first() else { return plan_err!("a point-in-time join of no view") };
    let schema = event_schema(&view.source.schema);
    let found = table.schema();
    let wanted: BTreeSet<String> = views.iter().flat_map(|view| view.reads()).collect();
    let columns: Vec<Expr> = schema
        .fields()
        .iter()
        .filter(|f| META_COLUMNS.contains(&f.name().as_str()) || wanted.contains(f.name()))
        .filter(|f| found.field_with_name(f.name()).is_ok())
        .map(|f| {
            let column = Expr::Column(Column::new(Some(view.source.name.as_str()), f.name()));
            let same = found.field_with_name(f.name()).is_ok_and(|found| found.data_type() == f.data_type());
            if same { column } else { cast_to(column, f.data_type().clone()).alias(f.name()) }
        })
        .collect();
    LogicalPlanBuilder::scan(view.source.name.as_str(), provider_as_source(table), None)?.project(columns)?.build()
}
