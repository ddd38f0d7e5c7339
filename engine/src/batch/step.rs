//! A step of a service's pipeline, as a node and an operator: the projections and table lookups of a training set.
//!
//! Guarantee: it runs [`Step::apply`], the code that answers a request, so that a key, a NULL and a failing expression
//! mean the same in both. A row that can't be evaluated is named.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, Result, exec_datafusion_err, internal_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::plan::failure::Failure;
use crate::plan::pipeline::{Rows, Step, nullable};
use crate::plan::service::ROW;

/// A step over the rows of a spine.
#[derive(Debug, Clone)]
pub struct ServiceStep {
    pub input: LogicalPlan,
    service: String,
    /// The step, in words.
    what: String,
    step: Arc<Step>,
    schema: DFSchemaRef,
}

impl ServiceStep {
    /// `step` was made for the columns of `input`; `output` is what it gives.
    pub fn try_new(service: &str, input: LogicalPlan, step: Step, what: String, output: &DFSchema) -> Result<Self> {
        let qualifiers = output.iter().map(|(qualifier, _)| qualifier.cloned()).collect();
        let schema = DFSchema::from_field_specific_qualified_schema(qualifiers, &nullable(output.as_arrow()))?;
        Ok(Self { input, service: service.to_owned(), what, step: Arc::new(step), schema: Arc::new(schema) })
    }

    pub fn exec(&self, input: Arc<dyn ExecutionPlan>) -> ServiceStepExec {
        let schema = Arc::clone(self.schema.inner());
        ServiceStepExec::new(input, self.service.clone(), self.what.clone(), self.step.clone(), schema)
    }

    /// What makes two steps the same.
    fn identity(&self) -> (&str, &str, &LogicalPlan) {
        (&self.service, &self.what, &self.input)
    }
}

impl UserDefinedLogicalNodeCore for ServiceStep {
    fn name(&self) -> &str {
        "ServiceStep"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None: the step is compiled, against all columns of its input (see `necessary_children_exprs`).
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return plan_err!("a step of a service has one input");
        };
        Ok(Self { input, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

impl PartialEq for ServiceStep {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ServiceStep {}

impl Hash for ServiceStep {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for ServiceStep {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

#[derive(Debug, Clone)]
pub struct ServiceStepExec {
    input: Arc<dyn ExecutionPlan>,
    service: String,
    what: String,
    step: Arc<Step>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl ServiceStepExec {
    fn new(input: Arc<dyn ExecutionPlan>, service: String, what: String, step: Arc<Step>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, service, what, step, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ServiceStepExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ServiceStepExec: {}", self.what)
    }
}

impl ExecutionPlan for ServiceStepExec {
    fn name(&self) -> &str {
        "ServiceStepExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    /// It does, but who hears so moves a sort below it by the place of its column, and a projection moves columns.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children) else {
            return internal_err!("a step of a service has one input");
        };
        let this = self.as_ref().clone();
        Ok(Arc::new(Self::new(input, this.service, this.what, this.step, this.schema)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (service, step) = (self.service.clone(), self.step.clone());
        let rows = self.input.execute(partition, context)?.map(move |rows| {
            let rows = rows?;
            apply(&step, rows.clone()).map_err(|error| blame(&service, &step, &rows, error))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }
}

fn apply(step: &Step, rows: RecordBatch) -> Result<RecordBatch> {
    Ok(step.apply(Rows::from(rows))?.batch)
}

/// The error, with the first row of the spine that has it.
fn blame(service: &str, step: &Step, rows: &RecordBatch, error: DataFusionError) -> DataFusionError {
    let Some((at, failure)) = first_failing(rows.num_rows(), |at, n| apply(step, rows.slice(at, n))) else {
        return error;
    };
    match rows.column_by_name(ROW).and_then(|c| c.as_primitive_opt::<Int64Type>()) {
        Some(numbers) => {
            exec_datafusion_err!("service {service}, row {} of the spine: {failure}", numbers.value(at) + 1)
        }
        None => exec_datafusion_err!("service {service}: {failure}"),
    }
}

/// The first of some rows that `run` (of a stretch: where it starts, and its length) fails on because of its data.
pub(super) fn first_failing<T>(rows: usize, run: impl Fn(usize, usize) -> Result<T>) -> Option<(usize, Failure)> {
    let (mut at, mut n) = (0, rows);
    while n > 1 {
        let half = n / 2;
        match run(at, half) {
            Err(_) => n = half,
            Ok(_) => (at, n) = (at + half, n - half),
        }
    }
    run(at, n).err().and_then(|error| Failure::of(&error)).map(|failure| (at, failure))
}
