//! Rows by their key's hash, in memory as long as it lasts and on disk beyond: what joins and folds key by key.
//!
//! Guarantees: every row is in one bucket, and all rows of a hash in the same one, whichever `Buckets` of that depth it was put into. What
//! the memory pool doesn't grant is written to files of DataFusion's disk manager, which are gone when they are dropped.

mod scatter;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::SpillMetrics;
use datafusion::physical_plan::spill::spill_pool::{SpillPoolSink, spsc_channel};
use futures::{Stream, StreamExt, TryStreamExt, stream};

pub(crate) use self::scatter::scatter;

/// How many there are. A power of two.
pub(crate) const BUCKETS: usize = 64;
/// How often a bucket can be shared out into buckets again: so many times a hash has bits for it.
pub(crate) const DEPTHS: u32 = 4;
/// Batches whose rows are shared out at once: enough for a bucket's share not to be a crumb.
const AT_ONCE: usize = 8;

const HASHES: RandomState = RandomState::with_seed(0x71de_3a4b);

/// A hash for each of so many rows, by some of their columns.
pub(crate) fn hashes(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(keys, &HASHES, &mut hashes)?;
    Ok(hashes)
}

/// What is made for each of so many columns of so many rows, by as many threads at once as there are cores: more take memory, each its own, and
/// gain nothing. Where rows are few, or the system has no more threads, this one does it.
pub(crate) fn side_by_side<T: Send>(
    (columns, rows): (usize, usize),
    make: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    const FEW: usize = 8192;
    let cores = if rows < FEW { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let next = AtomicUsize::new(0);
    let some = || {
        let columns = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|n| *n < columns);
        columns.map(|column| (column, make(column))).collect::<Vec<_>>()
    };
    let mut made = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..cores.min(columns)).filter_map(start).collect();
        let mut made = some();
        for other in others {
            made.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        made
    });
    made.sort_unstable_by_key(|(column, _)| *column);
    made.into_iter().map(|(_, made)| made).collect()
}

/// So many bytes of memory for all who share it; what they need beyond it they write to temporary files.
pub(crate) fn runtime_within(memory: usize) -> Result<Arc<RuntimeEnv>> {
    let pool = Arc::new(FairSpillPool::new(memory));
    let disk = DiskManagerBuilder::default().with_max_temp_directory_size(u64::MAX);
    RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()
}

/// Takes rows and shares them out.
pub(crate) struct Buckets {
    schema: SchemaRef,
    spill: Arc<SpillManager>,
    /// That of all buckets of a join, and how much of it is these rows'. Without, all rows go to disk.
    memory: Option<Arc<MemoryReservation>>,
    held: usize,
    /// How often these rows were shared out before.
    depth: u32,
    waiting: Vec<RecordBatch>,
    /// Of each batch that waits, rows and their buckets.
    named: Vec<Vec<(u32, u32)>>,
    /// For each bucket, how many rows wait.
    shares: [u32; BUCKETS],
    rows: usize,
    at_once: usize,
    buckets: Vec<Bucket>,
}

/// What lies in a bucket.
#[derive(Default)]
pub(crate) struct Bucket {
    rows: Vec<RecordBatch>,
    /// A file, where it is written (until all is), and its rows.
    spilled: Option<(Option<SpillPoolSink>, SendableRecordBatchStream)>,
    count: usize,
    bytes: usize,
    /// The memory that all buckets of the join take, given back with the last of them.
    _held: Option<Arc<MemoryReservation>>,
}

impl Buckets {
    /// What all buckets of a task hold memory by. One for all: a pool gives everybody that may spill the same share, so that many would leave
    /// little to the sort that comes after them.
    pub fn memory(name: &str, context: &TaskContext) -> Arc<MemoryReservation> {
        Arc::new(MemoryConsumer::new(name).with_can_spill(true).register(context.memory_pool()))
    }

    pub fn new(
        schema: SchemaRef,
        context: &TaskContext,
        metrics: SpillMetrics,
        memory: Option<Arc<MemoryReservation>>,
    ) -> Self {
        Self {
            spill: Arc::new(SpillManager::new(context.runtime_env(), metrics, schema.clone())),
            schema,
            memory,
            held: 0,
            depth: 0,
            waiting: vec![],
            named: vec![],
            shares: [0; BUCKETS],
            rows: 0,
            at_once: AT_ONCE * context.session_config().batch_size(),
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
        }
    }

    /// Shares out what was so many times before, by other bits of the hashes. All of it goes to disk, so that what others may hold in
    /// memory doesn't become less.
    pub fn again(schema: SchemaRef, context: &TaskContext, metrics: SpillMetrics, depth: u32) -> Self {
        Self { depth, ..Self::new(schema, context, metrics, None) }
    }

    /// Takes those rows of a batch that are named with their hashes.
    pub fn push(&mut self, rows: RecordBatch, hashes: impl Iterator<Item = (u32, u64)>) -> Result<()> {
        let (depth, shares) = (self.depth, &mut self.shares);
        let mut named: Vec<(u32, u32)> = Vec::with_capacity(rows.num_rows());
        named.extend(hashes.map(|(row, hash)| {
            let bucket = bucket_of(hash, depth);
            shares[bucket] += 1;
            (row, bucket as u32)
        }));
        if named.is_empty() {
            return Ok(());
        }
        self.rows += named.len();
        // A batch of which little is kept must not wait whole.
        if named.len() * 2 < rows.num_rows() {
            let kept: UInt32Array = named.iter().map(|(row, _)| *row).collect();
            self.waiting.push(take_record_batch(&rows, &kept)?);
            (0u32..).zip(&mut named).for_each(|(place, (row, _))| *row = place);
        } else {
            self.waiting.push(rows);
        }
        self.named.push(named);
        if self.rows >= self.at_once { self.share_out() } else { Ok(()) }
    }

    pub fn finish(mut self) -> Result<Vec<Bucket>> {
        self.share_out()?;
        if self.buckets.iter().any(|bucket| bucket.spilled.is_some()) {
            // What is on disk is read back a bucket at a time: that needs the memory more.
            self.spill()?;
        }
        // A file is open for as long as it may be written to, and files are many.
        self.buckets.iter_mut().filter_map(|bucket| bucket.spilled.as_mut()).for_each(|(file, _)| _ = file.take());
        let buckets = self.buckets.into_iter();
        Ok(buckets.map(|bucket| Bucket { _held: self.memory.clone(), ..bucket }).collect())
    }

    /// Puts the rows that wait into their buckets, side by side in one batch.
    fn share_out(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let starts = self.shares.iter().scan(0, |next, share| Some(std::mem::replace(next, *next + share)));
        let mut next: Vec<u32> = starts.collect();
        // From a row's bucket to its place.
        for (_, bucket) in self.named.iter_mut().flatten() {
            let place = &mut next[*bucket as usize];
            *bucket = std::mem::replace(place, *place + 1);
        }
        let column = |column: usize| {
            let parts: Vec<_> = self.waiting.iter().map(|rows| rows.column(column).as_ref()).collect();
            scatter(&parts, &self.named, self.rows)
        };
        let shared =
            RecordBatch::try_new(self.schema.clone(), side_by_side((self.schema.fields().len(), self.rows), column)?)?;
        self.waiting.clear();
        self.named.clear();
        let bytes = shared.get_array_memory_size();
        let mut granted = self.hold(bytes);
        if !granted && self.held > 0 {
            self.spill()?;
            granted = self.hold(bytes);
        }
        let mut at = 0;
        for (bucket, share) in self.buckets.iter_mut().zip(&mut self.shares) {
            let share = std::mem::take(share) as usize;
            if share > 0 {
                bucket.rows.push(shared.slice(at, share));
                bucket.count += share;
                bucket.bytes += bytes / self.rows * share;
                at += share;
            }
        }
        self.rows = 0;
        if granted { Ok(()) } else { self.spill() }
    }

    fn hold(&mut self, bytes: usize) -> bool {
        let granted = self.memory.as_ref().is_some_and(|memory| memory.try_grow(bytes).is_ok());
        self.held += if granted { bytes } else { 0 };
        granted
    }

    /// Writes what is in memory to disk, a file a bucket however often it comes to that: open files are few.
    fn spill(&mut self) -> Result<()> {
        for bucket in self.buckets.iter_mut().filter(|bucket| !bucket.rows.is_empty()) {
            let (file, _) = bucket.spilled.get_or_insert_with(|| {
                let (file, rows) = spsc_channel(usize::MAX, self.spill.clone());
                (Some(file), rows)
            });
            if let Some(file) = file {
                bucket.rows.drain(..).try_for_each(|rows| file.push_batch(&rows))?;
            }
        }
        if let Some(memory) = &self.memory {
            memory.shrink(std::mem::take(&mut self.held));
        }
        Ok(())
    }
}

impl Bucket {
    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows, from disk if they are there.
    pub async fn load(self) -> Result<Vec<RecordBatch>> {
        self.rows().try_collect().await
    }

    /// The rows one batch after the other.
    pub fn rows(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        let Self { rows, spilled, .. } = self;
        let spilled = spilled.map(|(_, spilled)| spilled);
        stream::iter(rows.into_iter().map(Ok)).chain(stream::iter(spilled).flatten())
    }
}

fn bucket_of(hash: u64, depth: u32) -> usize {
    (hash >> (32 + depth * BUCKETS.ilog2())) as usize % BUCKETS
}
