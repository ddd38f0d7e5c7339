//! A long part of the past into one view, key by key.
//!
//! Guarantee: every event is folded, each key's in offset order. A key is written once for all that it has there, unless that is
//! more than is folded at once. What doesn't fit into memory waits in temporary files.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch};
use datafusion::common::{Result as DfResult, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;

use super::error::StreamError;
use super::fold::{Folded, ViewFold, joined, view_rows};
use super::group::gather;
use super::share::Writing;
use crate::buckets::{Bucket, Buckets, hashes, runtime_within};
use crate::plan::FeatureView;

/// Rows of a run, if a bucket hasn't more: few stay in a core's cache, and are enough for a store's round trips to be full.
const RUN: usize = 1 << 14;
/// The same for a store that is the faster the more keys it gets.
const LONG_RUN: usize = 1 << 17;
/// Rows of all runs that are under way, about: some are put in order while others are written.
const UNDER_WAY: usize = 1 << 17;

/// The memory of those who share it.
pub(super) struct Room {
    context: TaskContext,
    memory: Arc<MemoryReservation>,
}

impl Room {
    pub fn new(bytes: usize) -> Result<Self, StreamError> {
        let context = TaskContext::default().with_runtime(runtime_within(bytes).map_err(StreamError::Spill)?);
        Ok(Self { memory: Buckets::memory("fill", &context), context })
    }
}

/// A view's rows of events, shared out by key.
pub(super) struct ByKey {
    view: Arc<FeatureView>,
    buckets: Buckets,
    rows: usize,
    /// Of the source, those about nobody included.
    events: usize,
}

impl ByKey {
    pub fn new(view: &Arc<FeatureView>, room: &Room) -> Self {
        let spilled = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let buckets = Buckets::new(view.rows_schema(), &room.context, spilled, Some(Arc::clone(&room.memory)));
        Self { view: Arc::clone(view), buckets, rows: 0, events: 0 }
    }

    /// Takes events of the source. What became of those that are about nobody, or can't be evaluated.
    pub fn push(&mut self, events: &RecordBatch) -> Result<Folded, StreamError> {
        let mut rows = view_rows(&self.view, events)?;
        let failed = std::mem::take(&mut rows.failed);
        let keys = self.view.keys.len();
        let (all, mut keyed) = (rows.times.len(), 0);
        let hashed = rows.into_batch(&self.view).and_then(|rows| {
            let keys = rows.columns().get(..keys).unwrap_or_default().to_vec();
            let hashes = hashes(&keys, all)?;
            Ok((rows, keys, hashes))
        });
        // A view whose rows are wrong is no disk that is full.
        let (rows, keys, hashes) =
            hashed.map_err(|source| StreamError::View { view: self.view.name.clone(), source })?;
        let named = (0u32..).zip(hashes);
        let named = named.filter(|(row, _)| keys.iter().all(|key| key.is_valid(*row as usize)));
        self.buckets.push(rows, named.inspect(|_| keyed += 1)).map_err(StreamError::Spill)?;
        self.rows += keyed;
        self.events += events.num_rows();
        Ok(Folded { failed, null_keys: all - keyed, ..Folded::default() })
    }

    /// Folds what was taken of a partition, at most so many rows at once. `fresh`: nothing of it is stored yet, most likely. `heard` is told
    /// what became of rows, and of how many of the events they were, those about nobody shared out among them.
    pub async fn fold(
        self,
        to: &Writing,
        (partition, most, fresh): (i32, usize, bool),
        heard: impl Fn(&Folded, usize),
    ) -> Result<(), StreamError> {
        let Self { view, buckets, rows, events } = self;
        let buckets = joined(spawn_blocking(|| buckets.finish()).await).map_err(StreamError::Spill)?;
        let failure = OnceLock::new();
        // Ends with its first error: what comes behind it of the same keys must not be folded before it.
        let fold = |run: Vec<Bucket>| {
            let (view, failure) = (&view, &failure);
            let folds = stream::try_unfold(parts(run, most).boxed(), move |mut parts| async move {
                let next = if failure.get().is_none() { parts.try_next().await } else { Ok(None) };
                let Some(Part { rows, whole }) = next.map_err(StreamError::Spill)? else { return Ok(None) };
                let of = Arc::clone(view);
                let grouped = joined(spawn_blocking(move || gather(&of, &rows, partition)).await)?;
                // Nothing to keep: what comes next has other keys.
                let mut fold = ViewFold::new(Arc::clone(view), 0);
                fold.fresh = fresh && whole;
                Ok(Some((fold.fold(to, grouped).await?, parts)))
            });
            folds.boxed()
        };
        let enough = if to.store.ordered() { LONG_RUN } else { RUN };
        let runs = runs(buckets, enough.min(most));
        let run = rows.checked_div(runs.len()).unwrap_or(0).max(1);
        let at_once = (UNDER_WAY / run).clamp(2, 4);
        let mut folds = stream::iter(runs).map(fold).flatten_unordered(at_once);
        let (mut came, mut told) = (0, 0);
        while let Some(folded) = folds.next().await {
            let folded = match folded {
                Ok(folded) => folded,
                Err(error) => {
                    // Nothing else begins, and what is under way ends.
                    _ = failure.set(error);
                    continue;
                }
            };
            came += folded.outcomes().iter().map(|(_, rows)| rows).sum::<usize>();
            let all = (events as u128 * came as u128).checked_div(rows as u128).unwrap_or(0) as usize;
            heard(&folded, all.saturating_sub(told));
            told = all.max(told);
        }
        drop(folds);
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        match came == rows {
            true => {
                heard(&Folded::default(), events.saturating_sub(told));
                Ok(())
            }
            // Progress must not say that they are in.
            false => Err(StreamError::Spill(internal_datafusion_err!("{came} of {rows} rows came back"))),
        }
    }
}

/// Buckets that are folded one after the other: some with enough rows together.
fn runs(buckets: Vec<Bucket>, enough: usize) -> Vec<Vec<Bucket>> {
    let (mut runs, mut run, mut count) = (vec![], vec![], 0);
    for bucket in buckets.into_iter().filter(|bucket| bucket.count() > 0) {
        count += bucket.count();
        run.push(bucket);
        if count >= enough {
            runs.push(std::mem::take(&mut run));
            count = 0;
        }
    }
    runs.extend(Some(run).filter(|run| !run.is_empty()));
    runs
}

/// Rows that are folded at once.
struct Part {
    rows: Vec<RecordBatch>,
    /// Whether it has no key of the part before.
    whole: bool,
}

/// The rows of a run: all at once, unless there are more than `most`.
fn parts(run: Vec<Bucket>, most: usize) -> impl Stream<Item = DfResult<Part>> {
    let rows = stream::iter(run).flat_map(|bucket| bucket.rows().boxed()).boxed();
    stream::try_unfold((rows, true), move |(mut rows, whole)| async move {
        let (mut part, mut count) = (Part { rows: vec![], whole }, 0);
        while count < most
            && let Some(some) = rows.try_next().await?
        {
            count += some.num_rows();
            part.rows.push(some);
        }
        Ok((count > 0).then_some((part, (rows, false))))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    /// Keys with numbers that ascend, in memory and through files.
    async fn shared_out(rng: &mut StdRng, rows: i64, memory: usize) -> Vec<Bucket> {
        let room = Room::new(memory).unwrap();
        let numbers = |of: Vec<i64>| Arc::new(Int64Array::from(of)) as ArrayRef;
        let batch = |keys: Vec<i64>, first: i64| {
            let ascending = (first..).take(keys.len()).collect();
            RecordBatch::try_from_iter([("key", numbers(keys)), ("number", numbers(ascending))]).unwrap()
        };
        let spilled = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let memory = Some(Arc::clone(&room.memory));
        let mut buckets = Buckets::new(batch(vec![], 0).schema(), &room.context, spilled, memory);
        let (mut at, most) = (0, rng.random_range(1..400));
        while at < rows {
            let n = rng.random_range(1..=20_000).min(rows - at);
            let keys: Vec<i64> = (0..n).map(|_| rng.random_range(0..most)).collect();
            let rows = batch(keys, at);
            let hashes = hashes(&rows.columns()[..1], rows.num_rows()).unwrap();
            buckets.push(rows, (0u32..).zip(hashes)).unwrap();
            at += n;
        }
        buckets.finish().unwrap()
    }

    #[tokio::test]
    async fn every_row_comes_once_a_keys_in_order_and_whole_keys_where_it_says_so() {
        let mut rng = StdRng::seed_from_u64(5);
        for case in 0..60 {
            let rows = rng.random_range(0..100_000);
            let memory = if rng.random_bool(0.5) { 1 } else { 1 << 30 };
            let most = rng.random_range(1..40_000);
            let enough = rng.random_range(1..=most);
            let buckets = shared_out(&mut rng, rows, memory).await;
            let (mut seen, mut last, mut numbers) = (HashSet::new(), vec![-1; 400], vec![]);
            let mut found: Vec<Part> = vec![];
            for run in runs(buckets, enough) {
                let first = found.len();
                found.extend(parts(run, most).try_collect::<Vec<_>>().await.unwrap());
                assert!(found.get(first).is_some_and(|part| part.whole), "case {case}: a run of its own");
            }
            for Part { rows, whole } in &found {
                let mut keys = HashSet::new();
                for rows in rows {
                    let [key, number] = [0, 1].map(|i| rows.column(i).as_primitive::<Int64Type>().values().to_vec());
                    for (key, number) in key.into_iter().zip(number) {
                        assert!(std::mem::replace(&mut last[key as usize], number) < number, "case {case}");
                        keys.insert(key);
                        numbers.push(number);
                    }
                }
                assert!(!whole || keys.is_disjoint(&seen), "case {case}: a key of a part before");
                seen.extend(keys);
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..rows).collect::<Vec<_>>(), "case {case}");
        }
    }
}
