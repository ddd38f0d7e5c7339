//! Views that lack a part of the source's past: they fill from it.
//!
//! Guarantees: a view that fills sees exactly the events that a training set sees (see [`super::past`]); where the first of them are gone,
//! it says from when on it has all, and waits until that was heard ([`super::horizon`]). After each stretch the store's progress says
//! how far a view is, and its pieces have absorbed no less: interrupted anywhere, whoever fills next goes on from there. Several may fill
//! the same view, and one may fill what another keeps fresh: pieces are fenced, and what one of them has absorbed the other skips.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all, try_join_all};

use super::error::StreamError;
use super::events::since;
use super::fold::{Folded, ViewFold, joined};
use super::horizon::raise;
use super::past::PastReader;
use super::share::Writing;
use crate::online::{ViewId, WriteOutcome};
use crate::plan::FeatureView;
use crate::request::HEARD;

/// Bytes of events after which a stretch ends, however few they are. Two are in memory at once: one is folded, one read.
const STRETCH: usize = 128 << 20;

/// A view that lacks events of a partition, from an offset on.
#[derive(Debug, Clone)]
pub struct Gap {
    pub view: Arc<FeatureView>,
    pub partition: i32,
    pub from: i64,
}

/// How far views are, by partition: for whoever watches a fill.
#[derive(Debug, Clone, Default)]
pub struct Reached(Arc<Mutex<BTreeMap<(ViewId, i32), i64>>>);

impl Reached {
    /// The offset below which a view has every event of a partition, if it got anywhere.
    pub fn of(&self, view: &ViewId, partition: i32) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(view.clone(), partition)).copied()
    }

    fn set(&self, view: ViewId, partition: i32, next: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((view, partition), next);
    }
}

/// Waits for so long.
pub type Pause = fn(Duration) -> BoxFuture<'static, ()>;

/// By the real clock.
pub fn pause(time: Duration) -> BoxFuture<'static, ()> {
    tokio::time::sleep(time).boxed()
}

/// Fills views of one source.
#[derive(Debug)]
pub struct Fill {
    to: Writing,
    past: PastReader,
    /// By partition, the offset up to which to fill.
    ends: BTreeMap<i32, i64>,
    /// Events that are folded at once: a key is written once for all that it has among them.
    records: usize,
    reached: Reached,
    pause: Pause,
    /// Horizons that this raised, or found raised.
    raised: BTreeSet<(ViewId, i32, i64)>,
    /// Whether some of them may not have been heard yet.
    unheard: bool,
}

/// A view on its way through a partition.
#[derive(Debug)]
struct Filling {
    fold: ViewFold,
    next: i64,
}

impl Fill {
    pub fn new(
        to: Writing,
        past: PastReader,
        ends: BTreeMap<i32, i64>,
        (records, pause): (usize, Pause),
        reached: Reached,
    ) -> Fill {
        Fill { to, past, ends, records, reached, pause, raised: BTreeSet::new(), unheard: false }
    }

    /// Fills gaps. `heard` is told what became of each stretch's events.
    pub async fn run(
        &mut self,
        gaps: Vec<Gap>,
        heard: &(dyn Fn(&FeatureView, &Folded) + Send + Sync),
    ) -> Result<(), StreamError> {
        let mut partitions: BTreeMap<i32, Vec<Filling>> = BTreeMap::new();
        for Gap { view, partition, from } in gaps {
            let views = partitions.entry(partition).or_default();
            // Nothing to keep: the next stretch has other keys, or the same ones with much that is new.
            let mut fold = ViewFold::new(view, 0);
            fold.fresh = from == 0;
            views.push(Filling { fold, next: from });
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
        heard: &(dyn Fn(&FeatureView, &Folded) + Send + Sync),
    ) -> Result<(), StreamError> {
        let end = self.ends.get(&partition).copied().unwrap_or(0);
        let lacks = |views: &[Filling]| views.iter().map(|view| view.next).min().filter(|from| *from < end);
        let Some(from) = lacks(views) else { return Ok(()) };
        let mut refused = None;
        let mut ahead = Some(stretch(&mut self.past, partition, from..end, self.records).await?);
        while let Some(Stretch { events, offsets }) = ahead.take() {
            let next = offsets.end;
            // Known by now, also if it was removed while this read.
            refused = self.look_back(partition, views).await?.or(refused);
            if views.is_empty() {
                break;
            }
            if std::mem::take(&mut self.unheard) {
                (self.pause)(HEARD).await;
            }
            let Self { to, past, records, reached, .. } = self;
            let filled = views.iter_mut().map(async |view| {
                if view.next >= next {
                    return Ok(());
                }
                let folded = view.fold.apply(to, partition, &since(&events, view.next, offsets.start)?).await?;
                heard(&view.fold.view, &folded);
                view.next = advance(to, &view.fold.view.id(), partition, view.next, next).await?;
                reached.set(view.fold.view.id(), partition, view.next);
                Ok::<_, StreamError>(())
            });
            // What comes next is read meanwhile.
            let read = async {
                if next >= end {
                    return Ok(None);
                }
                stretch(past, partition, next..end, *records).await.map(Some)
            };
            let (filled, more) = join(try_join_all(filled), read).await;
            filled?;
            // Not left to the next commit: what a restart would do again is bounded by a stretch.
            to.store.flush().await?;
            ahead = more?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Says of views from when on they have every event, if what they lack begins with events that are gone. Those that can't fill then
    /// are left out; the reason of one of them, if there are any.
    async fn look_back(
        &mut self,
        partition: i32,
        views: &mut Vec<Filling>,
    ) -> Result<Option<StreamError>, StreamError> {
        let (mut refused, mut place) = (None, 0);
        while let Some(Filling { fold, next }) = views.get(place) {
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

/// Events of a partition that are filled at once.
struct Stretch {
    events: RecordBatch,
    offsets: Range<i64>,
}

/// The events from an offset on, and up to where there are no others.
async fn stretch(
    past: &mut PastReader,
    partition: i32,
    offsets: Range<i64>,
    records: usize,
) -> Result<Stretch, StreamError> {
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
    let events = together(past.schema(), parts).await;
    let events = events.map_err(|source| StreamError::View { view: "-".to_owned(), source })?;
    Ok(Stretch { events, offsets: offsets.start..next })
}

/// Puts batches together, columns side by side: it is much to copy, and nothing else goes on.
async fn together(schema: SchemaRef, parts: Vec<RecordBatch>) -> DfResult<RecordBatch> {
    let columns = (0..schema.fields().len()).map(|column| {
        let parts: Vec<ArrayRef> = parts.iter().map(|part| part.column(column).clone()).collect();
        let of = schema.field(column).data_type().clone();
        tokio::task::spawn_blocking(move || match parts.is_empty() {
            true => Ok(new_empty_array(&of)),
            false => concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>()),
        })
    });
    let columns = join_all(columns).await.into_iter().map(joined).collect::<Result<_, _>>()?;
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
