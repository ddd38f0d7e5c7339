//! The point-in-time join as a physical operator.
//!
//! Reads the whole spine, then the events; keeps those of the spine's keys up to its latest instant; evaluates the
//! view's kernel for each key over its timeline at the key's instants; and puts the values beside the spine's rows,
//! in the spine's order.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::TryStreamExt;

use super::join::Join;
use crate::plan::FeatureView;

#[derive(Debug, Clone)]
pub struct PointInTimeExec {
    spine: Arc<dyn ExecutionPlan>,
    events: Arc<dyn ExecutionPlan>,
    view: Arc<FeatureView>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    instant: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PointInTimeExec {
    pub fn new(
        spine: Arc<dyn ExecutionPlan>,
        events: Arc<dyn ExecutionPlan>,
        view: Arc<FeatureView>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        instant: Arc<dyn PhysicalExpr>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            spine,
            events,
            view,
            keys,
            instant,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for PointInTimeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> =
            self.view.keys.iter().zip(&self.keys).map(|(k, e)| format!("{} = {e}", k.name())).collect();
        write!(f, "PointInTimeExec: view={}, on=[{}], as_of={}", self.view.name, keys.join(", "), self.instant)
    }
}

impl ExecutionPlan for PointInTimeExec {
    fn name(&self) -> &str {
        "PointInTimeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.spine, &self.events]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.keys.iter().chain([&self.instant]) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition, Distribution::SinglePartition]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([spine, events]) = <[Arc<dyn ExecutionPlan>; 2]>::try_from(children) else {
            return internal_err!("a point-in-time join has two inputs");
        };
        let this = self.as_ref().clone();
        Ok(Arc::new(Self::new(spine, events, this.view, this.keys, this.instant, this.schema)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a point-in-time join has one partition, not {partition}");
        }
        let mut spine = self.spine.execute(0, context.clone())?;
        let mut events = self.events.execute(0, context.clone())?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (view, keys, instant, schema) =
            (self.view.clone(), self.keys.clone(), self.instant.clone(), self.schema.clone());
        let size = context.session_config().batch_size();
        let pool = context.memory_pool().clone();
        let batches = async move {
            let mut join = Join::new(view, &pool);
            while let Some(batch) = spine.try_next().await? {
                join.spine(batch, &keys, &instant)?;
            }
            while let Some(batch) = events.try_next().await? {
                let _timer = metrics.elapsed_compute().timer();
                join.events(&batch)?;
            }
            let _timer = metrics.elapsed_compute().timer();
            let batch = join.finish(schema)?;
            metrics.record_output(batch.num_rows());
            let slices = (0..batch.num_rows())
                .step_by(size.max(1))
                .map(move |at| Ok(batch.slice(at, size.min(batch.num_rows() - at))));
            Ok::<_, datafusion::error::DataFusionError>(futures::stream::iter(slices.collect::<Vec<_>>()))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
