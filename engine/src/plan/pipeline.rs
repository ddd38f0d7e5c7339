//! Row-level SQL as a straight line of steps over batches.
//!
//! The row stage of a feature view, the projection above its windows and the body of a feature service are all
//! row-level queries: filters, computed columns, and lookups that find at most one row. Each becomes a [`Pipeline`],
//! and the same pipeline runs in the stream, in a request and in a training set. It is pure and synchronous.
//!
//! Guarantee: every output row comes from exactly one input row and knows which ([`Rows::origin`]), in input order.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::join::{TableJoin, ViewJoin};
use super::problem::{PlanResult, Problem};
use crate::catalog::History;

#[derive(Debug, Clone)]
pub struct Pipeline {
    pub steps: Vec<Step>,
    pub output: SchemaRef,
}

#[derive(Debug, Clone)]
pub enum Step {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    JoinTable(Box<TableJoin>),
    /// A lookup of a feature view's values at the row's instant; only in a service. The caller does it.
    JoinView(ViewJoin),
}

/// A batch on its way through a pipeline.
#[derive(Debug, Clone)]
pub struct Rows {
    pub batch: RecordBatch,
    /// For each row, the index of the input row that it comes from.
    pub origin: Vec<u32>,
}

impl From<RecordBatch> for Rows {
    fn from(batch: RecordBatch) -> Self {
        let origin = (0..batch.num_rows() as u32).collect();
        Self { batch, origin }
    }
}

impl Pipeline {
    /// Runs the steps. View joins are not for this function: a service's reader does those itself.
    pub fn run(&self, batch: RecordBatch) -> Result<Rows> {
        self.steps.iter().try_fold(Rows::from(batch), |rows, step| step.apply(rows))
    }

    pub fn view_joins(&self) -> impl Iterator<Item = &ViewJoin> {
        self.steps.iter().filter_map(|s| match s {
            Step::JoinView(join) => Some(join),
            _ => None,
        })
    }

    pub fn table_joins_mut(&mut self) -> impl Iterator<Item = &mut TableJoin> {
        self.steps.iter_mut().filter_map(|s| match s {
            Step::JoinTable(join) => Some(join.as_mut()),
            _ => None,
        })
    }

    pub fn table_joins(&self) -> impl Iterator<Item = &TableJoin> {
        self.steps.iter().filter_map(|s| match s {
            Step::JoinTable(join) => Some(join.as_ref()),
            _ => None,
        })
    }
}

impl Step {
    pub fn apply(&self, rows: Rows) -> Result<Rows> {
        match self {
            Self::Filter(predicate) => {
                let mask = predicate.evaluate(&rows.batch)?.into_array(rows.batch.num_rows())?;
                rows.keep(as_boolean_array(&mask)?)
            }
            Self::Project(exprs, schema) => {
                let n = rows.batch.num_rows();
                // Whoever reads the error wants to know which feature it was.
                let evaluate = |(e, f): (&Arc<dyn PhysicalExpr>, &FieldRef)| {
                    e.evaluate(&rows.batch).and_then(|v| v.into_array(n)).map_err(|e| e.context(f.name().clone()))
                };
                let columns = exprs.iter().zip(schema.fields()).map(evaluate).collect::<Result<Vec<_>>>()?;
                Ok(Rows { batch: batch(schema.clone(), columns, n)?, origin: rows.origin })
            }
            Self::JoinTable(join) => join.apply(rows),
            Self::JoinView(join) => {
                datafusion::common::internal_err!("feature view {} can't be joined in a row stage", join.view.name)
            }
        }
    }
}

impl Rows {
    /// The rows where the mask is true.
    pub fn keep(self, mask: &BooleanArray) -> Result<Self> {
        let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
        if mask.true_count() == mask.len() {
            return Ok(self);
        }
        let origin = self.origin.iter().enumerate().filter(|(i, _)| mask.value(*i)).map(|(_, o)| *o).collect();
        Ok(Self { batch: filter_record_batch(&self.batch, &mask)?, origin })
    }
}

/// A batch of `rows` rows, which may have no columns.
pub fn batch(schema: SchemaRef, columns: Vec<arrow::array::ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Builds a pipeline from a logical plan over one base relation.
pub struct Builder<'a> {
    /// The relation whose rows the pipeline works on.
    pub base: &'a str,
    /// Its column with the instant that a row is evaluated at.
    pub instant: &'a str,
    /// What other relations are.
    pub kind: &'a dyn Fn(&str) -> Kind,
    /// `Some` in a service, where a filter or an inner join would lose a request's row.
    pub one_row_each: bool,
}

/// What a relation in a row-level query is.
#[derive(Debug, Clone)]
pub enum Kind {
    Source,
    Table(Option<History>),
    View(Arc<super::FeatureView>),
    Request,
}

impl Builder<'_> {
    /// The steps of a plan, the base relation's scan first.
    pub fn steps(&self, plan: &LogicalPlan) -> PlanResult<Vec<Step>> {
        let mut steps = vec![];
        self.walk(plan, &mut steps)?;
        Ok(steps)
    }

    fn walk(&self, plan: &LogicalPlan, steps: &mut Vec<Step>) -> PlanResult<()> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.table_name.table() == self.base => Ok(()),
            LogicalPlan::SubqueryAlias(alias) => self.walk(&alias.input, steps),
            LogicalPlan::Filter(filter) => {
                if self.one_row_each {
                    return Err(Problem::new("a feature service answers every request row, so it can't filter them")
                        .hint("move the condition into the columns, with CASE WHEN … THEN … END")
                        .at_clause("where"));
                }
                self.walk(&filter.input, steps)?;
                steps.push(Step::Filter(physical(&filter.predicate, filter.input.schema())?));
                Ok(())
            }
            LogicalPlan::Projection(projection) => {
                self.walk(&projection.input, steps)?;
                steps.push(project(&projection.expr, projection.input.schema(), projection.schema.as_arrow())?);
                Ok(())
            }
            LogicalPlan::Join(join) => {
                if !mentions(&join.left, self.base) || mentions(&join.right, self.base) {
                    return Err(Problem::new(format!("`{}` must stand first in FROM, and once", self.base))
                        .hint(format!("write FROM {} LEFT JOIN …", self.base))
                        .at_from(self.base));
                }
                super::asof::check(join, self)?;
                if self.one_row_each && join.join_type != JoinType::Left {
                    return Err(Problem::new(format!(
                        "{} JOIN in a feature service could lose a request's row",
                        join.join_type.to_string().to_uppercase()
                    ))
                    .expected("LEFT JOIN")
                    .at_clause("join"));
                }
                self.walk(&join.left, steps)?;
                steps.push(super::join::step(join, self.kind)?);
                Ok(())
            }
            other if self.one_row_each => Err(unsupported_in_service(other)),
            other => Err(unsupported(other)),
        }
    }
}

/// A projection as a step.
pub fn project(exprs: &[Expr], input: &DFSchema, output: &Schema) -> PlanResult<Step> {
    let exprs = exprs.iter().map(|e| physical(e, input)).collect::<PlanResult<Vec<_>>>()?;
    Ok(Step::Project(exprs, nullable(output)))
}

/// The same columns, all nullable: a lookup that finds nothing gives NULLs whatever the table's schema promises.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// A row-level expression, ready to run.
pub fn physical(expr: &Expr, schema: &DFSchema) -> PlanResult<Arc<dyn PhysicalExpr>> {
    check(expr)?;
    // Some functions (COALESCE, NVL2, …) exist only to be simplified into others: they can't run as they are.
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    let expr = ExprSimplifier::new(context).simplify(expr.clone())?;
    Ok(create_physical_expr(&expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?)
}

/// Refuses what has no place in a row-level expression: subqueries, and functions whose answer is not a function of their arguments.
fn check(expr: &Expr) -> PlanResult<()> {
    let mut found = None;
    expr.apply(|e| {
        found = match e {
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => Some(
                Problem::new(format!("`{}()` is volatile: its value at a past instant can't be known", f.name()))
                    .expected("functions of the row's columns")
                    .hint("use the source's timestamp column, or pass the value in the request")
                    .at_name(f.name()),
            ),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => Some(
                Problem::new("a subquery in an expression can't be evaluated for one event or one request")
                    .hint("join a dimension table instead: LEFT JOIN … ON …")
                    .at_subquery(),
            ),
            Expr::WindowFunction(_) => Some(
                Problem::new("a window can't stand in WHERE or ON: its result is known only when all events are")
                    .hint("filter by the events' own columns, or use a CASE over the result")
                    .at_clause("where"),
            ),
            Expr::Unnest(_) => Some(
                Problem::new("UNNEST makes several rows of one")
                    .hint("use an array function instead")
                    .at_name("unnest"),
            ),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    found.map_or(Ok(()), Err)
}

/// Whether a plan scans the relation.
pub fn mentions(plan: &LogicalPlan, relation: &str) -> bool {
    scans(plan).iter().any(|name| name == relation)
}

/// The relations that a plan scans.
pub fn scans(plan: &LogicalPlan) -> Vec<String> {
    let mut names = vec![];
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.push(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    names
}

fn unsupported_in_service(plan: &LogicalPlan) -> Problem {
    let problem = match plan {
        LogicalPlan::Aggregate(_) => "a feature service answers each request row by itself: it can't aggregate them",
        LogicalPlan::Window(_) => {
            "a feature service answers each request row by itself: a window over them has no meaning"
        }
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
            "a feature service answers every request row in its order: ORDER BY and LIMIT have no meaning"
        }
        LogicalPlan::Distinct(_) => "a feature service answers every request row: DISTINCT has no meaning",
        other => return unsupported(other),
    };
    Problem::new(problem)
        .hint("aggregates belong into feature views; a service combines their results")
        .at_clause("select")
}

fn unsupported(plan: &LogicalPlan) -> Problem {
    let (what, name, hint): (&str, &'static str, &str) = match plan {
        LogicalPlan::Aggregate(_) => (
            "GROUP BY has no meaning between events",
            "group",
            "aggregate over a window: SUM(x) OVER (PARTITION BY key ORDER BY event_time RANGE …)",
        ),
        LogicalPlan::Sort(_) => ("ORDER BY outside a window has no effect on features", "order", "remove it"),
        LogicalPlan::Limit(_) => (
            "LIMIT has no meaning for features",
            "limit",
            "for the last n events use ROWS BETWEEN n PRECEDING AND CURRENT ROW",
        ),
        LogicalPlan::Distinct(_) => {
            ("SELECT DISTINCT has no meaning between events", "distinct", "use COUNT(DISTINCT x) OVER …")
        }
        LogicalPlan::Union(_) => {
            ("UNION of relations is not supported", "union", "read one source per view and join the views in a service")
        }
        LogicalPlan::Window(_) => (
            "a window over the results of a window has no timeline of its own",
            "over",
            "compute both windows over the source in one SELECT",
        ),
        LogicalPlan::Unnest(_) => ("UNNEST makes several rows of one", "unnest", "use an array function instead"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("the query reads no source", "select", "add FROM <source>")
        }
        LogicalPlan::RecursiveQuery(_) => {
            ("a recursive query has no meaning between events", "recursive", "remove RECURSIVE")
        }
        LogicalPlan::TableScan(scan) => {
            return Problem::new(format!("`{}` can't be read here", scan.table_name)).at_name(scan.table_name.table());
        }
        _ => {
            return Problem::new("this kind of query has no meaning in a definition")
                .expected("SELECT … FROM … [LEFT JOIN …] [WHERE …]");
        }
    };
    Problem::new(what).hint(hint).at_clause(name)
}

/// Whether two key types can be compared by a lookup without changing what equality means.
pub fn same_family(a: &DataType, b: &DataType) -> bool {
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    a == b || (a.is_integer() && b.is_integer()) || (text(a) && text(b))
}
