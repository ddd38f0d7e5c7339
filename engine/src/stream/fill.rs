//! Views that lack a part of the source's past: they fill from it.
//!
//! Guarantees: a view that fills sees exactly the events that a training set sees (see [`super::past`]); where the first of them are gone,
//! it says from when on it has all, and waits until that was heard ([`super::horizon`]). After each stretch the store's progress says
//! how far a view is, and its pieces have absorbed no less: interrupted anywhere, whoever fills next goes on from there. Several may fill
//! the same view, and one may fill what another keeps fresh: pieces are fenced, and what one of them has absorbed the other skips.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{Array, RecordBatch, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result as DfResult, internal_datafusion_err};
use futures::FutureExt;
use futures::future::{BoxFuture, join, try_join_all};
use tokio::task::spawn_blocking;

use super::by_key::{ByKey, Room};
use super::error::StreamError;
use super::events::since;
use super::fold::{Folded, ViewFold, joined};
use super::horizon::raise;
use super::past::PastReader;
use super::share::Writing;
use crate::buckets::side_by_side;
use crate::online::{ViewId, WriteOutcome};
use crate::plan::FeatureView;
use crate::request::HEARD;

/// Bytes of events after which a stretch ends, however few they are. Two are in memory at once: one is shared out, one read.
const STRETCH: usize = 64 << 20;
/// Events that are folded as they come. More are shared out by key first.
const FEW: usize = 1 << 17;
/// How many times what is folded at once is shared out, before it is folded and progress is written down.
const LONG: usize = 16;

/// A view that lacks events of a partition, from an offset on.
#[derive(Debug, Clone)]
pub struct Gap {
    pub view: Arc<FeatureView>,
    pub partition: i32,
    pub from: i64,
}

/// How far views are: for whoever watches a fill.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    next: Arc<Mutex<BTreeMap<(ViewId, i32), i64>>>,
    done: Arc<Mutex<Done>>,
}

/// How many of the source's events a fill has to go through, each once for each view that lacks it, and how many it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// About as many as there are.
    pub all: u64,
    pub read: u64,
    /// Of those read, the ones that are in the store, or not for it.
    pub folded: u64,
}

impl Reached {
    /// The offset below which a view has every event of a partition, if it got anywhere.
    pub fn of(&self, view: &ViewId, partition: i32) -> Option<i64> {
        lock(&self.next).get(&(view.clone(), partition)).copied()
    }

    pub fn done(&self) -> Done {
        *lock(&self.done)
    }

    /// So many events are left. What was read or folded, and isn't written down as that, is gone through again.
    pub(super) fn begins(&self, left: u64) {
        let mut done = lock(&self.done);
        let stored = done.all.saturating_sub(left);
        *done = Done { all: stored + left, read: stored, folded: stored };
    }

    fn set(&self, view: ViewId, partition: i32, next: i64) {
        lock(&self.next).insert((view, partition), next);
    }

    /// For so many views. What is left is known better by what was read.
    fn read(&self, stretch: &Stretch, views: usize) {
        let [views, events] = [views, stretch.rows()].map(|n| n as u64);
        let mut done = lock(&self.done);
        let all = (done.all + (events + stretch.left.1) * views).saturating_sub(stretch.left.0 * views);
        done.read += events * views;
        done.all = all.max(done.read);
    }

    fn folded(&self, events: usize) {
        lock(&self.done).folded += events as u64;
    }
}

/// Who panicked left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for so long.
pub type Pause = fn(Duration) -> BoxFuture<'static, ()>;

/// By the real clock.
pub fn pause(time: Duration) -> BoxFuture<'static, ()> {
    tokio::time::sleep(time).boxed()
}

/// How a fill goes about it.
#[derive(Debug, Clone)]
pub struct FillConfig {
    /// Events that are folded at once.
    pub records: usize,
    /// Bytes of memory for events on their way into views.
    pub memory: usize,
    /// Waits for who reads a view.
    pub pause: Pause,
}

impl Default for FillConfig {
    fn default() -> Self {
        Self { records: 524_288, memory: 256 << 20, pause }
    }
}

/// Fills views of one source.
#[derive(Debug)]
pub struct Fill {
    to: Writing,
    past: PastReader,
    /// By partition, the offset up to which to fill.
    ends: BTreeMap<i32, i64>,
    config: FillConfig,
    reached: Reached,
    /// Horizons that this raised, or found raised.
    raised: BTreeSet<(ViewId, i32, i64)>,
    /// Whether some of them may not have been heard yet.
    unheard: bool,
}

/// A view on its way through a partition.
struct Filling {
    fold: ViewFold,
    next: i64,
    /// What it takes next, if that is long.
    by_key: Option<ByKey>,
}

type Heard<'a> = &'a (dyn Fn(&FeatureView, &Folded) + Send + Sync);

impl Fill {
    pub fn new(to: Writing, past: PastReader, ends: BTreeMap<i32, i64>, config: FillConfig, reached: Reached) -> Fill {
        Fill { to, past, ends, config, reached, raised: BTreeSet::new(), unheard: false }
    }

    /// Fills gaps. `heard` is told what became of each stretch's events.
    pub async fn run(&mut self, gaps: Vec<Gap>, heard: Heard<'_>) -> Result<(), StreamError> {
        let mut partitions: BTreeMap<i32, Vec<Filling>> = BTreeMap::new();
        for Gap { view, partition, from } in gaps {
            let views = partitions.entry(partition).or_default();
            // Nothing to keep: what comes next has other keys, or the same ones with much that is new.
            views.push(Filling { fold: ViewFold::new(view, 0), next: from, by_key: None });
        }
        let mut refused = None;
        // Of all partitions, so that it is waited once.
        for (partition, views) in &mut partitions {
            refused = self.look_back(*partition, views).await?.or(refused);
        }
        for (partition, mut views) in partitions {
            match self.partition(partition, &mut views, heard).await {
                Err(error @ StreamError::Removed { .. }) => refused = Some(error),
                done => done?,
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// A view that can't fill is left out, and said when the others are done.
    async fn partition(
        &mut self,
        partition: i32,
        views: &mut Vec<Filling>,
        heard: Heard<'_>,
    ) -> Result<(), StreamError> {
        let end = self.ends.get(&partition).copied().unwrap_or(0);
        let lacks = |views: &[Filling]| views.iter().map(|view| view.next).min().filter(|from| *from < end);
        let mut refused = None;
        while let Some(from) = lacks(views) {
            let records = self.config.records;
            let first = stretch(&mut self.past, partition, from..end, records.min(FEW)).await?;
            let start = first.offsets.start;
            let (next, few) = match first.offsets.end < end {
                true => (self.share_out(partition, end, (views, first), heard).await?, None),
                false => {
                    self.reached.read(&first, views.len());
                    (first.offsets.end, Some(first.together(self.past.schema()).await?))
                }
            };
            // Known by now, also if it was removed while this read.
            refused = self.look_back(partition, views).await?.or(refused);
            if std::mem::take(&mut self.unheard) && !views.is_empty() {
                (self.config.pause)(HEARD).await;
            }
            let Self { to, reached, .. } = &*self;
            let filled = views.iter_mut().filter(|view| view.next < next).map(async |view| {
                let fresh = view.next == 0;
                let id = view.fold.view.id();
                match (&few, view.by_key.take()) {
                    (None, Some(by_key)) => {
                        let of = view.fold.view.clone();
                        let how = (partition, records, fresh);
                        let heard = |folded: &Folded, events| {
                            heard(&of, folded);
                            reached.folded(events);
                        };
                        by_key.fold(to, how, heard).await?;
                    }
                    (Some(events), _) => {
                        view.fold.fresh = fresh;
                        let folded = view.fold.apply(to, partition, &since(events, view.next, start)?).await?;
                        heard(&view.fold.view, &folded);
                        reached.folded(events.num_rows());
                    }
                    (None, None) => return Err(StreamError::Spill(internal_datafusion_err!("nothing was shared out"))),
                }
                view.next = advance(to, &id, partition, view.next, next).await?;
                reached.set(id, partition, view.next);
                Ok::<_, StreamError>(())
            });
            try_join_all(filled).await?;
            // Not left to the next commit: what a restart would do again is bounded.
            to.store.flush().await?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Shares out by key what views lack: what was read of it, and what comes next, each view beside the others and all beside
    /// the reading. Returns up to where.
    async fn share_out(
        &mut self,
        partition: i32,
        end: i64,
        (views, first): (&mut [Filling], Stretch),
        heard: Heard<'_>,
    ) -> Result<i64, StreamError> {
        let room = Room::new(self.config.memory)?;
        for view in &mut *views {
            view.by_key = Some(ByKey::new(&view.fold.view, &room));
        }
        let (mut rows, mut next, mut ahead) = (0, first.offsets.start, Some(first));
        while let Some(read) = ahead.take() {
            rows += read.rows();
            self.reached.read(&read, views.len());
            let Stretch { parts, offsets, .. } = read;
            next = offsets.end;
            let parts = Arc::new(parts);
            let shared = views.iter_mut().map(async |view| {
                let Some(mut by_key) = view.by_key.take() else { return Ok(()) };
                let (parts, from, first) = (Arc::clone(&parts), view.next, offsets.start);
                let pushed = spawn_blocking(move || {
                    let push = |part| by_key.push(&since(part, from, first)?);
                    let folded = parts.iter().map(push).collect::<Result<Vec<_>, StreamError>>();
                    (by_key, folded)
                });
                let (by_key, folded) = joined(pushed.await);
                folded?.iter().for_each(|folded| heard(&view.fold.view, folded));
                view.by_key = Some(by_key);
                Ok::<_, StreamError>(())
            });
            let Self { past, config, .. } = self;
            let read = async {
                if next >= end || rows >= LONG.saturating_mul(config.records) {
                    return Ok(None);
                }
                stretch(past, partition, next..end, config.records.min(FEW)).await.map(Some)
            };
            let (shared, more) = join(try_join_all(shared), read).await;
            shared?;
            ahead = more?;
        }
        Ok(next)
    }

    /// Says of views from when on they have every event, if what they lack begins with events that are gone. Those that can't fill then
    /// are left out; the reason of one of them, if there are any.
    async fn look_back(
        &mut self,
        partition: i32,
        views: &mut Vec<Filling>,
    ) -> Result<Option<StreamError>, StreamError> {
        let (mut refused, mut place) = (None, 0);
        while let Some(Filling { fold, next, .. }) = views.get(place) {
            let gone = self.past.removed(partition, &fold.view.source.timestamp);
            if let Some((_, horizon)) = gone.filter(|(begin, _)| next < begin) {
                match raise(&self.to, &fold.view, partition, horizon).await {
                    Err(error @ StreamError::Removed { .. }) => {
                        refused = Some(error);
                        views.remove(place);
                        continue;
                    }
                    done => done?,
                }
                // Somebody else may have raised it just now.
                self.unheard |= self.raised.insert((fold.view.id(), partition, horizon));
            }
            place += 1;
        }
        Ok(refused)
    }
}

/// Events of a partition.
struct Stretch {
    parts: Vec<RecordBatch>,
    offsets: Range<i64>,
    /// How many there are up to the partition's end, about, as was thought before it was read and behind it.
    left: (u64, u64),
}

/// Some events from an offset on, and up to where there are no others.
async fn stretch(
    past: &mut PastReader,
    partition: i32,
    offsets: Range<i64>,
    records: usize,
) -> Result<Stretch, StreamError> {
    let before = past.between(partition, offsets.start, offsets.end).await?;
    let (mut parts, mut rows, mut bytes, mut next) = (vec![], 0, 0, offsets.start);
    while rows < records && bytes < STRETCH && next < offsets.end {
        match past.read(partition, next, records - rows).await? {
            Some((events, after)) => {
                next = after;
                rows += events.num_rows();
                bytes += events.get_array_memory_size();
                parts.push(events);
            }
            // What is left was refused.
            None => next = offsets.end,
        }
    }
    let left = (before, past.between(partition, next, offsets.end).await?);
    Ok(Stretch { parts, offsets: offsets.start..next, left })
}

impl Stretch {
    fn rows(&self) -> usize {
        self.parts.iter().map(RecordBatch::num_rows).sum()
    }

    async fn together(self, schema: SchemaRef) -> Result<RecordBatch, StreamError> {
        let events = joined(spawn_blocking(move || together(schema, &self.parts)).await);
        events.map_err(|source| StreamError::View { view: "-".to_owned(), source })
    }
}

/// Puts batches together, columns side by side: it is much to copy, and nothing else goes on.
fn together(schema: SchemaRef, parts: &[RecordBatch]) -> DfResult<RecordBatch> {
    let column = |column: usize| {
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.column(column).as_ref()).collect();
        match parts.is_empty() {
            true => Ok(new_empty_array(schema.field(column).data_type())),
            false => Ok(concat(&parts)?),
        }
    };
    let rows = parts.iter().map(RecordBatch::num_rows).sum();
    let columns = side_by_side((schema.fields().len(), rows), column)?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Writes down how far a view is; further, if somebody else got further.
async fn advance(to: &Writing, view: &ViewId, partition: i32, from: i64, next: i64) -> Result<i64, StreamError> {
    match to.store.set_progress(to.session, view, partition, Some(from), next).await? {
        WriteOutcome::Written => Ok(next),
        WriteOutcome::Fenced { holds: Some(holds) } if holds > next => Ok(holds),
        WriteOutcome::Fenced { .. } => Err(StreamError::StateLost { view: view.name.clone(), partition }),
    }
}
