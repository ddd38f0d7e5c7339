//! A point-in-time join at work: the spine into buckets, then the events, then bucket by bucket.
//!
//! Guarantees: every row of the spine comes out once, in no order that matters. Events are read and buckets are walked by as
//! many tasks as the session has partitions, the fullest bucket first, and the rows of a hot key by several. All tasks end
//! when the stream is dropped.

use std::sync::Arc;
use std::sync::Mutex;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::JoinSet;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, SpillMetrics};
use futures::TryStreamExt;
use tokio::sync::mpsc::Sender;

use super::buckets::{BUCKETS, Bucket};
use super::join::Joined;
use super::sides::{EventSide, SpineSide, Wanted, whole};
use crate::plan::FeatureView;

/// What a join runs with.
pub(super) struct Run {
    pub events: Arc<dyn ExecutionPlan>,
    pub views: Vec<Arc<FeatureView>>,
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub instant: Arc<dyn PhysicalExpr>,
    pub schema: SchemaRef,
    pub context: Arc<TaskContext>,
    pub metrics: ExecutionPlanMetricsSet,
    /// A filter of events by their time, for what reads them, and the time.
    pub times: Option<(Arc<DynamicFilterPhysicalExpr>, Arc<dyn PhysicalExpr>)>,
}

type Output = Sender<Result<RecordBatch>>;

impl Run {
    pub async fn run(self, mut spine: SendableRecordBatchStream, output: Output) -> Result<()> {
        let Some(view) = self.views.first() else { return Ok(()) };
        let spine_schema = spine.schema();
        let spilled = SpillMetrics::new(&self.metrics, 0);
        let mut side = SpineSide::new(&spine_schema, &self.keys, &self.instant, view, &self.context, spilled);
        while let Some(rows) = spine.try_next().await? {
            side.push(&rows)?;
        }
        let (spine, wanted) = side.finish()?;
        if let Some((filter, time)) = &self.times {
            filter.update(wanted.times(&self.views, time))?;
            filter.mark_complete();
        }
        let events = self.events(Arc::new(wanted)).await?;

        let rows = self.context.session_config().batch_size().max(1);
        let metrics = BaselineMetrics::new(&self.metrics, 0);
        let tasks = self.context.session_config().target_partitions().max(1);
        let work = Arc::new(Work {
            buckets: Mutex::new(shared_out(spine, events)),
            views: self.views,
            spine_schema,
            schema: self.schema,
            output,
            metrics,
            rows,
            tasks,
        });
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            running.spawn(Arc::clone(&work).buckets());
        }
        all(running).await.map(drop)
    }

    /// For each task that read events, and each view, its buckets.
    async fn events(&self, wanted: Arc<Wanted>) -> Result<Vec<Vec<Vec<Bucket>>>> {
        let mut tasks = JoinSet::new();
        for partition in 0..self.events.properties().output_partitioning().partition_count() {
            let mut events = self.events.execute(partition, self.context.clone())?;
            let side = |view: &Arc<FeatureView>| {
                EventSide::new(view, &wanted, &self.context, SpillMetrics::new(&self.metrics, partition))
            };
            let mut sides: Vec<EventSide> = self.views.iter().map(side).collect();
            let first = self.views.first().cloned();
            let metrics = BaselineMetrics::new(&self.metrics, partition);
            tasks.spawn(async move {
                while let Some(rows) = events.try_next().await? {
                    let _timer = metrics.elapsed_compute().timer();
                    let Some(view) = &first else { break };
                    let rows = whole(view, &rows)?;
                    sides.iter_mut().try_for_each(|side| side.push(&rows))?;
                }
                sides.into_iter().map(EventSide::finish).collect::<Result<Vec<_>>>()
            });
        }
        all(tasks).await
    }
}

/// A bucket of the spine, and those of the same hashes of events: for each view, from each task that read some.
struct Pair {
    spine: Bucket,
    events: Vec<Vec<Bucket>>,
}

/// What the tasks that walk buckets share.
struct Work {
    /// The fullest is last.
    buckets: Mutex<Vec<Pair>>,
    views: Vec<Arc<FeatureView>>,
    spine_schema: SchemaRef,
    schema: SchemaRef,
    output: Output,
    metrics: BaselineMetrics,
    /// Of a batch.
    rows: usize,
    tasks: usize,
}

impl Work {
    async fn buckets(self: Arc<Self>) -> Result<()> {
        // A lock is poisoned by a panic in another task, which ends the join anyway.
        while let Some(pair) = self.buckets.lock().ok().and_then(|mut buckets| buckets.pop()) {
            let spine = pair.spine.load().await?;
            let mut events = vec![];
            for parts in pair.events {
                let mut rows = vec![];
                for bucket in parts {
                    rows.extend(bucket.load().await?);
                }
                events.push(rows);
            }
            let joined = {
                let _timer = self.metrics.elapsed_compute().timer();
                Arc::new(Joined::new(&self.views, &self.spine_schema, &spine, events, self.rows)?)
            };
            drop(spine);
            // The parts of a hot key are shared out too, but not more than can be at work.
            let mut parts = JoinSet::new();
            for from in joined.parts() {
                if parts.len() >= self.tasks {
                    one(&mut parts).await?;
                }
                parts.spawn(Arc::clone(&self).part(joined.clone(), from));
            }
            while one(&mut parts).await?.is_some() {}
        }
        Ok(())
    }

    async fn part(self: Arc<Self>, joined: Arc<Joined>, from: usize) -> Result<()> {
        let rows = {
            let _timer = self.metrics.elapsed_compute().timer();
            joined.part(from, &self.schema)?
        };
        self.metrics.record_output(rows.num_rows());
        // Who doesn't read on has dropped the stream.
        let _ = self.output.send(Ok(rows)).await;
        Ok(())
    }
}

/// Brings together what belongs together, the fullest bucket last.
fn shared_out(spine: Vec<Bucket>, events: Vec<Vec<Vec<Bucket>>>) -> Vec<Pair> {
    let views = events.first().map_or(0, Vec::len);
    let none = || (0..views).map(|_| vec![]).collect();
    let mut pairs: Vec<Pair> = spine.into_iter().map(|spine| Pair { spine, events: none() }).collect();
    for task in events {
        for (view, buckets) in task.into_iter().enumerate() {
            for (pair, bucket) in pairs.iter_mut().zip(buckets) {
                if let Some(parts) = pair.events.get_mut(view) {
                    parts.push(bucket);
                }
            }
        }
    }
    debug_assert_eq!(pairs.len(), BUCKETS);
    pairs.retain(|pair| pair.spine.count() > 0);
    pairs
        .sort_by_cached_key(|pair| pair.spine.count() + pair.events.iter().flatten().map(Bucket::count).sum::<usize>());
    pairs
}

/// What tasks came to, or the first error.
async fn all<T: Send + 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = vec![];
    while let Some(task) = one(&mut tasks).await? {
        done.push(task);
    }
    Ok(done)
}

/// What the next task came to that is over; nothing when all are.
async fn one<T: Send + 'static>(tasks: &mut JoinSet<Result<T>>) -> Result<Option<T>> {
    let Some(task) = tasks.join_next().await else { return Ok(None) };
    task.map_err(|e| exec_datafusion_err!("a task of a point-in-time join was ended: {e}"))?.map(Some)
}
