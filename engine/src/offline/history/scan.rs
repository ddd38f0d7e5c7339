//! A history as a physical operator.
//!
//! Guarantees: each row group of each file is read by one task, whichever tasks there are, or is left out as [`super::needed`] says; rows keep
//! their places. How many row groups were left out, and how many bytes were asked for, is in the operator's metrics, under the names that
//! DataFusion's own scans have for it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, conjunction};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, PruningMetrics,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::try_unfold;

use super::History;
use super::file::Rows;

/// So many pieces a task is enough for all to be done at about the same time.
const PIECES: usize = 4;

/// The operator's name, by which a join knows that it waits for a filter.
pub(crate) const HISTORY_EXEC: &str = "HistoryExec";

/// Reads the files of a history.
#[derive(Debug, Clone)]
pub(super) struct HistoryExec {
    history: Arc<History>,
    wanted: SchemaRef,
    tasks: usize,
    /// What is asked for, over the columns that are wanted.
    filter: Option<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl HistoryExec {
    pub fn new(history: Arc<History>, wanted: SchemaRef, tasks: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(wanted.clone()),
            Partitioning::UnknownPartitioning(tasks.max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { history, wanted, tasks: tasks.max(1), filter: None, properties: Arc::new(properties), metrics }
    }
}

impl DisplayAs for HistoryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<&str> = self.wanted.fields().iter().map(|field| field.name().as_str()).collect();
        let source = &self.history.judge.source;
        write!(f, "{HISTORY_EXEC}: source={source}, files={}", self.history.files.len())?;
        write!(f, ", projection=[{}]", columns.join(", "))?;
        self.filter.iter().try_for_each(|filter| write!(f, ", predicate={filter}"))
    }
}

impl ExecutionPlan for HistoryExec {
    fn name(&self) -> &str {
        HISTORY_EXEC
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.filter.as_ref().map_or(Ok(TreeNodeRecursion::Continue), f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a history has no input"),
        }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metric = || MetricBuilder::new(&self.metrics);
        let task = Task {
            scan: self.clone(),
            task: partition,
            asked: metric().counter("bytes_scanned", partition),
            skipped: metric().pruning_metrics("row_groups_pruned_statistics", partition),
        };
        let read = BaselineMetrics::new(&self.metrics, partition);
        let start: (_, Option<Rows>) = (task.pieces().into_iter(), None);
        let rows = try_unfold((start, task, read), |((mut pieces, mut open), task, read)| async move {
            let external = |e| DataFusionError::External(Box::new(e));
            loop {
                if let Some(rows) = &mut open
                    && let Some(events) = rows.next().await.map_err(external)?
                {
                    read.record_output(events.num_rows());
                    return Ok(Some((project(&events, &task.scan.wanted)?, ((pieces, open), task, read))));
                }
                let Some(piece) = pieces.next() else { return Ok(None) };
                open = task.open(piece).await?;
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.wanted.clone(), rows)))
    }

    /// Takes what is asked for, as a hint: rows outside of it may come.
    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters: Vec<_> = result.parent_filters.iter().map(|parent| Arc::clone(&parent.filter)).collect();
        let kept = FilterPushdownPropagation::all_unsupported(result);
        if filters.is_empty() {
            return Ok(kept);
        }
        let filter = Some(conjunction(self.filter.iter().cloned().chain(filters)));
        Ok(kept.with_updated_node(Arc::new(Self { filter, ..self.clone() })))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One task of several.
struct Task {
    scan: HistoryExec,
    task: usize,
    asked: Count,
    skipped: PruningMetrics,
}

/// Every so many of a file's row groups, from one on.
struct Piece {
    file: usize,
    from: usize,
    step: usize,
}

impl Task {
    /// Its share: files that are many are read by a task each, of few files several tasks read some row groups each.
    fn pieces(&self) -> Vec<Piece> {
        let (files, tasks) = (self.scan.history.files.len(), self.scan.tasks);
        let step = (PIECES * tasks).div_ceil(files.max(1)).clamp(1, tasks);
        let all = (0..files).flat_map(|file| (0..step).map(move |from| Piece { file, from, step }));
        all.enumerate().filter(|(n, _)| n % tasks == self.task).map(|(_, piece)| piece).collect()
    }

    /// The events of a piece; none, if it has none that are needed.
    async fn open(&self, piece: Piece) -> Result<Option<Rows>> {
        let external = |e| DataFusionError::External(Box::new(e));
        let HistoryExec { history, wanted, filter, .. } = &self.scan;
        let Some(file) = history.file(piece.file, self.asked.clone()).await.map_err(external)? else { return Ok(None) };
        let groups: Vec<usize> = (piece.from..file.groups().len()).step_by(piece.step).collect();
        let n = groups.len();
        let needed = file.needed(groups, filter.as_ref(), wanted)?;
        self.skipped.add_matched(needed.groups.len());
        self.skipped.add_pruned(n - needed.groups.len());
        if needed.groups.is_empty() {
            return Ok(None);
        }
        // The event time is looked at in any case.
        let time = &history.judge.timestamp;
        let read = |place: usize, name: &String| {
            needed.columns.contains(&place) || name == time || wanted.index_of(name).is_ok()
        };
        let fields = history.schema.fields().iter().enumerate();
        let fields = fields.filter(|(place, f)| read(*place, f.name())).map(|(_, f)| Arc::clone(f));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        file.rows(needed.groups, 0, schema).map(Some).map_err(external)
    }
}

fn project(events: &RecordBatch, wanted: &Schema) -> Result<RecordBatch> {
    let places = wanted.fields().iter().map(|field| events.schema_ref().index_of(field.name()));
    Ok(events.project(&places.collect::<std::result::Result<Vec<_>, _>>()?)?)
}
