//! The point-in-time join as a physical operator.
//!
//! Reads the whole spine, then the events, each into buckets by their key's hash; keeps those events that a row of the spine may
//! need; and walks bucket by bucket, evaluating the views' kernels for each key over its timeline at the key's instants. What
//! the memory pool doesn't grant is spilled. Of Parquet, what lies outside the spine's time and the views' reach isn't read. Rows come out in no order: a plan that needs one sorts.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr, lit};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};

use super::node::on;
use super::run::Run;
use crate::plan::FeatureView;
use crate::source::{OFFSET, PARTITION};

/// Batches that may wait for who reads them.
const WAITING: usize = 4;

#[derive(Debug, Clone)]
pub struct PointInTimeExec {
    spine: Arc<dyn ExecutionPlan>,
    events: Arc<dyn ExecutionPlan>,
    views: Vec<Arc<FeatureView>>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    instant: Arc<dyn PhysicalExpr>,
    horizon: Option<i64>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// What the scan of events skips files and row groups by, once the spine is read.
    times: Option<Arc<DynamicFilterPhysicalExpr>>,
}

impl PointInTimeExec {
    pub fn new(
        spine: Arc<dyn ExecutionPlan>,
        events: Arc<dyn ExecutionPlan>,
        views: Vec<Arc<FeatureView>>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        instant: Arc<dyn PhysicalExpr>,
        horizon: Option<i64>,
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
            views,
            keys,
            instant,
            horizon,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            times: None,
        }
    }

    /// The column of the events' times.
    fn time(&self) -> Option<Arc<dyn PhysicalExpr>> {
        let name = &self.views.first()?.source.timestamp;
        Some(Arc::new(Column::new_with_schema(name, &self.events.schema()).ok()?))
    }

    /// Whether all events come in the order of their places, as those of one reader may.
    fn in_order(&self) -> bool {
        let schema = self.events.schema();
        let column = |name| Column::new_with_schema(name, &schema).map(|column| Arc::new(column) as _);
        let place: Result<Vec<_>> = [PARTITION, OFFSET].into_iter().map(column).collect();
        let events = self.events.properties();
        events.output_partitioning().partition_count() == 1
            && place.is_ok_and(|place| {
                let place = place.into_iter().map(|column| PhysicalSortExpr::new(column, SortOptions::default()));
                events.equivalence_properties().ordering_satisfy(place).unwrap_or(false)
            })
    }
}

impl DisplayAs for PointInTimeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let views: Vec<&str> = self.views.iter().map(|view| view.name.as_str()).collect();
        let on = on(&self.views, &self.keys);
        write!(f, "PointInTimeExec: views=[{}], on=[{on}], as_of={}", views.join(", "), self.instant)?;
        if self.in_order() { f.write_str(", events=in order") } else { Ok(()) }
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
        vec![Distribution::SinglePartition, Distribution::UnspecifiedDistribution]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false, false]
    }

    /// Events are taken by as many tasks as there are partitions of them. Where they come in order, one task and those that decode keep two
    /// cores busy; only with more of them it is worth losing the order.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        let few = std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= 2);
        vec![false, !(few && self.in_order())]
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
        let new = Self::new(spine, events, this.views, this.keys, this.instant, this.horizon, this.schema);
        Ok(Arc::new(Self { times: this.times, ..new }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a point-in-time join has one partition, not {partition}");
        }
        let spine = self.spine.execute(0, context.clone())?;
        let run = Run {
            in_order: self.in_order(),
            events: self.events.clone(),
            views: self.views.clone(),
            keys: self.keys.clone(),
            instant: self.instant.clone(),
            horizon: self.horizon,
            schema: self.schema.clone(),
            metrics: self.metrics.clone(),
            times: self.times.clone().zip(self.time()),
            context,
        };
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), WAITING);
        let output = stream.tx();
        stream.spawn(run.run(spine, output));
        Ok(stream.build())
    }

    /// Nothing passes from above. To the events goes a filter by their time, which the spine gives when it is read.
    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parents: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let none = || ChildFilterDescription::all_unsupported(&parents);
        let events = match self.time() {
            Some(time) if phase == FilterPushdownPhase::Post && self.times.is_none() => {
                none().with_self_filter(Arc::new(DynamicFilterPhysicalExpr::new(vec![time], lit(true))))
            }
            _ => none(),
        };
        Ok(FilterDescription::new().with_child(none()).with_child(events))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let pushed = result.self_filters.get(1).and_then(|filters| filters.first()).map(|f| f.predicate.clone());
        let all = FilterPushdownPropagation::all_unsupported(result);
        Ok(match pushed.map(|filter| Arc::downcast::<DynamicFilterPhysicalExpr>(filter)) {
            Some(Ok(times)) => all.with_updated_node(Arc::new(Self { times: Some(times), ..self.clone() })),
            _ => all,
        })
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
