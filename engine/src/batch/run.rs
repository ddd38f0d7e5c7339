//! A point-in-time join at work: the spine into buckets, then the events, then bucket by bucket.
//!
//! Guarantees: every row of the spine comes out once, in no order that matters. Events are read and buckets are walked by as
//! many tasks as the session has partitions, the fullest bucket first, and the rows of a hot key by several. A bucket that would take
//! more than its part of the memory is shared out into buckets again, down to a key. All tasks end when the stream is dropped.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::JoinSet;
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, SpillMetrics,
};
use futures::TryStreamExt;
use tokio::sync::mpsc::Sender;

use super::horizon::Held;
use super::join::Joined;
use super::sides::{EventSide, SpineSide, Wanted, events_schema, spine_schema, whole};
use crate::buckets::{BUCKETS, Bucket, Buckets, DEPTHS, hashes};
use crate::offline::HISTORY_EXEC;
use crate::plan::FeatureView;

/// What a join runs with.
pub(super) struct Run {
    pub events: Arc<dyn ExecutionPlan>,
    /// They come in the order of their places, all from one task.
    pub in_order: bool,
    pub views: Vec<Arc<FeatureView>>,
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub instant: Arc<dyn PhysicalExpr>,
    pub horizon: Option<i64>,
    pub schema: SchemaRef,
    pub context: Arc<TaskContext>,
    pub metrics: ExecutionPlanMetricsSet,
    /// A filter of events by their time, for what reads them, and the time.
    pub times: Option<(Arc<DynamicFilterPhysicalExpr>, Arc<dyn PhysicalExpr>)>,
}

type Output = Sender<Result<RecordBatch>>;

/// How often a bucket is in memory, while it is put in order.
const COPIES: usize = 3;

impl Run {
    pub async fn run(self, mut spine: SendableRecordBatchStream, output: Output) -> Result<()> {
        let Some(view) = self.views.first() else { return Ok(()) };
        let spine_schema = spine.schema();
        // Where the spine says nothing of what to read, reading begins beside it.
        let early = if prunes(&self.events) { None } else { Some(self.streams()?) };
        let spilled = SpillMetrics::new(&self.metrics, 0);
        let held = self.horizon.map(|horizon| Held { views: self.views.clone(), horizon });
        let memory = Buckets::memory("PointInTimeExec", &self.context);
        let room = (spilled, Arc::clone(&memory));
        let mut side = SpineSide::new(&spine_schema, &self.keys, &self.instant, (view, held), &self.context, room);
        while let Some(rows) = spine.try_next().await? {
            side.push(&rows)?;
        }
        let (spine, wanted) = side.finish()?;
        if let Some((filter, time)) = &self.times {
            filter.update(wanted.times(&self.views, time))?;
            filter.mark_complete();
        }
        let streams = early.map_or_else(|| self.streams(), Ok)?;
        // From here on the memory is the buckets'.
        let events = self.events(streams, Arc::new(wanted), memory).await?;

        let rows = self.context.session_config().batch_size().max(1);
        let metrics = BaselineMetrics::new(&self.metrics, 0);
        let tasks = self.context.session_config().target_partitions().max(1);
        let work = Arc::new(Work {
            buckets: Mutex::new(shared_out(spine, events, 0)),
            views: self.views,
            in_order: self.in_order,
            spine_schema,
            schema: self.schema,
            output,
            metrics,
            rows,
            tasks,
            most: most(&self.context, tasks),
            context: self.context,
            again: MetricBuilder::new(&self.metrics).global_counter("shared_out"),
            spilled: self.metrics,
        });
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            running.spawn(Arc::clone(&work).buckets());
        }
        all(running).await.map(drop)
    }

    fn streams(&self) -> Result<Vec<SendableRecordBatchStream>> {
        let partitions = 0..self.events.properties().output_partitioning().partition_count();
        partitions.map(|partition| self.events.execute(partition, self.context.clone())).collect()
    }

    /// For each task that read events, and each view, its buckets.
    async fn events(
        &self,
        streams: Vec<SendableRecordBatchStream>,
        wanted: Arc<Wanted>,
        memory: Arc<MemoryReservation>,
    ) -> Result<Vec<Vec<Vec<Bucket>>>> {
        let mut tasks = JoinSet::new();
        for (partition, mut events) in streams.into_iter().enumerate() {
            let side = |view: &Arc<FeatureView>| {
                let room = (SpillMetrics::new(&self.metrics, partition), Arc::clone(&memory));
                EventSide::new(view, &wanted, self.in_order, &self.context, room)
            };
            let mut sides = self.views.iter().map(side).collect::<Result<Vec<_>>>()?;
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
    /// How often its rows were shared out.
    depth: u32,
}

impl Pair {
    fn bytes(&self) -> usize {
        self.spine.bytes() + self.events.iter().flatten().map(Bucket::bytes).sum::<usize>()
    }

    /// What it takes while it is walked: there are copies of it while it is put in order, and what the views' kernels make of it.
    fn walked(&self, views: &[Arc<FeatureView>]) -> usize {
        let rows = self.events.iter().map(|parts| parts.iter().map(Bucket::count).sum::<usize>());
        let beside = rows.zip(views).map(|(rows, view)| rows * view.kernel.walk_bytes()).sum::<usize>();
        COPIES * self.bytes() + beside
    }
}

/// What the tasks that walk buckets share.
struct Work {
    /// The fullest is last.
    buckets: Mutex<Vec<Pair>>,
    views: Vec<Arc<FeatureView>>,
    /// A bucket's events lie in the order of their places.
    in_order: bool,
    spine_schema: SchemaRef,
    schema: SchemaRef,
    output: Output,
    metrics: BaselineMetrics,
    /// Of a batch.
    rows: usize,
    tasks: usize,
    /// Bytes that the walk of a bucket may take.
    most: usize,
    context: Arc<TaskContext>,
    spilled: ExecutionPlanMetricsSet,
    /// How many buckets were too large.
    again: Count,
}

impl Work {
    async fn buckets(self: Arc<Self>) -> Result<()> {
        // A lock is poisoned by a panic in another task, which ends the join anyway.
        while let Some(pair) = self.buckets.lock().ok().and_then(|mut buckets| buckets.pop()) {
            if pair.walked(&self.views) > self.most && pair.depth < DEPTHS {
                let pairs = self.share_out(pair).await?;
                if let Ok(mut buckets) = self.buckets.lock() {
                    buckets.extend(pairs);
                }
                continue;
            }
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
                Arc::new(Joined::new(&self.views, &self.spine_schema, &spine, (events, self.in_order), self.rows)?)
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

    /// A bucket as many.
    async fn share_out(&self, pair: Pair) -> Result<Vec<Pair>> {
        let (depth, whole) = (pair.depth + 1, pair.bytes());
        self.again.add(1);
        let buckets = |schema| Buckets::again(schema, &self.context, SpillMetrics::new(&self.spilled, 0), depth);
        let own = self.spine_schema.fields().len();
        let keys = self.views.first().map(|view| view.key_fields()).unwrap_or_default();
        let schema = spine_schema(&self.spine_schema, &keys);
        let into = buckets(schema);
        let spine = again(vec![pair.spine], own..own + keys.len(), into).await?;
        let mut events: Vec<Vec<Bucket>> = vec![];
        for (view, parts) in self.views.iter().zip(pair.events) {
            let into = buckets(events_schema(view, self.in_order)?);
            events.push(again(parts, 0..keys.len(), into).await?);
        }
        let mut pairs = shared_out(spine, vec![events], depth);
        // One key's rows stay together, however many they are.
        for pair in pairs.iter_mut().filter(|pair| pair.bytes() > whole / 10 * 9) {
            pair.depth = DEPTHS;
        }
        Ok(pairs)
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

/// Whether files are skipped by what a filter says once it is known: DataFusion's own scans do that, and that of a history.
fn prunes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    ["DataSourceExec", HISTORY_EXEC].contains(&plan.name()) || plan.children().into_iter().any(prunes)
}

/// How many bytes each of so many tasks may take to walk a bucket: half of the limit is left for what waits.
fn most(context: &TaskContext, tasks: usize) -> usize {
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(bytes) => bytes / (2 * tasks),
        _ => usize::MAX,
    }
}

/// Shares out what lies in buckets.
async fn again(from: Vec<Bucket>, keys: Range<usize>, mut into: Buckets) -> Result<Vec<Bucket>> {
    for bucket in from {
        let mut rows = bucket.rows();
        while let Some(rows) = rows.try_next().await? {
            let Some(keys) = rows.columns().get(keys.clone()) else {
                return internal_err!("a bucket without keys");
            };
            let hashes = hashes(keys, rows.num_rows())?;
            into.push(rows, (0u32..).zip(hashes))?;
        }
    }
    into.finish()
}

/// Brings together what belongs together, the fullest bucket last.
fn shared_out(spine: Vec<Bucket>, events: Vec<Vec<Vec<Bucket>>>, depth: u32) -> Vec<Pair> {
    let views = events.first().map_or(0, Vec::len);
    let none = || (0..views).map(|_| vec![]).collect();
    let mut pairs: Vec<Pair> = spine.into_iter().map(|spine| Pair { spine, events: none(), depth }).collect();
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
