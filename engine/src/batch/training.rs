//! A training set's plan: a service over a spine.
//!
//! The service's own logical plan is kept; its request becomes the spine, and its joins to feature views become
//! point-in-time joins. The spine's columns travel along hidden, so that labels come out beside features in one pass.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    Expr, Extension, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, cast as cast_to, col,
};

use super::PointInTimeJoin;
use crate::catalog::Source;
use crate::plan::join::{as_view, view_keys};
use crate::plan::pipeline::{Kind, nullable};
use crate::plan::{FeatureService, FeatureView, Project, REQUEST, timestamp_type};
use crate::source::{META_COLUMNS, event_schema};

/// Gives a source's past as a table: the contract's columns, then `_partition`, `_offset`, `_ingested_at`.
pub type EventTables<'a> = &'a dyn Fn(&Source) -> Result<Arc<dyn TableProvider>>;

const ROW: &str = "__row";
const INSTANT: &str = "__instant";

#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    #[error("the spine has no column `{column}`, which service `{service}` asks for; it has {has}")]
    MissingColumn { column: String, service: String, has: String },
    #[error("the spine has no timestamp column `{column}`; it has {has}")]
    MissingTimestamp { column: String, has: String },
    #[error("column `{column}` of the spine is {found}; expected {expected}")]
    ColumnType { column: String, found: DataType, expected: DataType },
    #[error("column `{column}` is in the spine and is another thing in service `{service}`; rename it in the spine")]
    Ambiguous { column: String, service: String },
    #[error(transparent)]
    Plan(#[from] DataFusionError),
}

impl From<arrow::error::ArrowError> for TrainingError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Plan(error.into())
    }
}

/// The rows that a training set starts from, in memory.
#[derive(Debug)]
pub struct Spine {
    pub rows: RecordBatch,
    /// The column with the instant to evaluate at.
    pub timestamp: String,
}

impl Spine {
    pub fn new(batches: &[RecordBatch], schema: &Schema, timestamp: &str) -> Result<Self, TrainingError> {
        let schema = nullable(schema);
        let batches = batches
            .iter()
            .map(|b| crate::plan::pipeline::batch(schema.clone(), b.columns().to_vec(), b.num_rows()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { rows: concat_batches(&schema, &batches)?, timestamp: timestamp.to_owned() })
    }

    /// The rows as the service's request, the hidden columns behind: row number, instant, and every column of the spine.
    fn table(&self, service: &FeatureService) -> Result<Arc<dyn TableProvider>, TrainingError> {
        let schema = self.rows.schema();
        let has = || schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let typed = |name: &str, to: &DataType| -> Option<Result<ArrayRef, TrainingError>> {
            let column = self.rows.column_by_name(name)?;
            Some(cast(column, to).map_err(|_| TrainingError::ColumnType {
                column: name.to_owned(),
                found: column.data_type().clone(),
                expected: to.clone(),
            }))
        };
        let mut fields: Vec<Field> = vec![];
        let mut columns: Vec<ArrayRef> = vec![];
        for field in service.signature.fields() {
            let missing = || TrainingError::MissingColumn {
                column: field.name().clone(),
                service: service.name.clone(),
                has: has(),
            };
            columns.push(typed(field.name(), field.data_type()).ok_or_else(missing)??);
            fields.push(field.as_ref().clone());
        }
        let instants = self.rows.column_by_name(&self.timestamp);
        if let Some(column) = instants.filter(|c| !matches!(c.data_type(), DataType::Timestamp(_, _))) {
            return Err(TrainingError::ColumnType {
                column: self.timestamp.clone(),
                found: column.data_type().clone(),
                expected: timestamp_type(),
            });
        }
        let missing = || TrainingError::MissingTimestamp { column: self.timestamp.clone(), has: has() };
        columns.push(Arc::new((0..self.rows.num_rows() as i64).collect::<Int64Array>()));
        fields.push(Field::new(ROW, DataType::Int64, false));
        columns.push(typed(&self.timestamp, &timestamp_type()).ok_or_else(missing)??);
        fields.push(Field::new(INSTANT, timestamp_type(), true));
        for (i, field) in schema.fields().iter().enumerate() {
            columns.push(self.rows.column(i).clone());
            fields.push(Field::new(spine_name(i), field.data_type().clone(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        let batch = crate::plan::pipeline::batch(schema.clone(), columns, self.rows.num_rows())?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

/// A service evaluated over a spine: the spine's columns, then the service's, in the spine's order.
pub fn training_plan(
    project: &Project,
    service: &FeatureService,
    spine: &Spine,
    events: EventTables<'_>,
) -> Result<LogicalPlan, TrainingError> {
    let table = spine.table(service)?;
    let hidden: Vec<String> =
        [ROW.to_owned(), INSTANT.to_owned()].into_iter().chain((0..spine.rows.num_columns()).map(spine_name)).collect();
    let rewrite = Rewrite { project, events, table, hidden };
    let plan = rewrite.plan(&service.plan)?;
    let plan = LogicalPlanBuilder::from(plan).sort(vec![col(ROW).sort(true, false)])?.build()?;

    let schema = plan.schema().clone();
    let spine_schema = spine.rows.schema();
    let mut output: Vec<Expr> = vec![];
    for (i, field) in spine_schema.fields().iter().enumerate() {
        output.push(named(&schema, &spine_name(i))?.alias(field.name()));
    }
    for (i, field) in service.schema.fields().iter().enumerate() {
        let (qualifier, column) = schema.qualified_field(i);
        if spine_schema.field_with_name(field.name()).is_ok() {
            if passes_request(&service.plan, i, field.name()) {
                continue;
            }
            return Err(TrainingError::Ambiguous { column: field.name().clone(), service: service.name.clone() });
        }
        output.push(Expr::Column(Column::new(qualifier.cloned(), column.name())).alias(field.name()));
    }
    Ok(LogicalPlanBuilder::from(plan).project(output)?.build()?)
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

fn spine_name(index: usize) -> String {
    format!("__spine_{index}")
}

fn named(schema: &DFSchema, name: &str) -> Result<Expr> {
    match schema.iter().find(|(_, f)| f.name() == name) {
        Some((qualifier, _)) => Ok(Expr::Column(Column::new(qualifier.cloned(), name))),
        None => plan_err!("the plan of a training set lost its column {name}"),
    }
}

/// Rewrites a service's plan over a spine.
struct Rewrite<'a> {
    project: &'a Project,
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
                let exprs = projection.expr.iter().cloned().chain(hidden).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Join(join) => self.join(join),
            other => plan_err!("{} in a feature service", other.display()),
        }
    }

    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        let left = self.plan(&join.left)?;
        let kind = |name: &str| -> Kind { self.project.kind(name) };
        if let Some((view, alias)) = as_view(&join.right, &kind) {
            let keys = view_keys(join, &view, &alias).map_err(|p| DataFusionError::Plan(p.message))?;
            let instant = named(left.schema(), INSTANT)?;
            let events = self.events(&view)?;
            let node = PointInTimeJoin::try_new(left, events, view, TableReference::bare(alias), keys, instant)?;
            return Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
        }
        let right = crate::plan::bind(&join.right, &|name| crate::plan::provider(&self.project.tables, name))?;
        Ok(LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on.clone(),
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?))
    }

    /// A source's events with the columns that the view reads, and the platform's own.
    fn events(&self, view: &FeatureView) -> Result<LogicalPlan> {
        let table = (self.events)(&view.source)?;
        let schema = event_schema(&view.source.schema);
        let found = table.schema();
        let wanted = view.reads();
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
}
