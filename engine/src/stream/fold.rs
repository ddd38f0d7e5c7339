//! One batch into one view: row stage, group by key, and share by share into the store.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result as DfResult;
use tokio::task::{JoinError, JoinSet};

use super::cache::Cache;
use super::error::StreamError;
use super::group::{Grouped, group};
use super::share::{Batch, Group, Share, Writing};
use crate::kernel::FoldCounts;
use crate::metrics::Metrics;
use crate::plan::FeatureView;
use crate::plan::rows::{FailedEvent, ViewRows};
use crate::source::META_COLUMNS;

/// How often a write that another writer got ahead of is folded anew before giving up.
const FENCED_ATTEMPTS: usize = 8;
/// Keys that are folded together.
const SHARE: usize = 1024;
/// Shares of one view that are under way: one or two are folded while others wait for the store.
const SHARES: usize = 3;

/// A view that a worker keeps fresh.
#[derive(Debug)]
pub struct ViewFold {
    pub view: Arc<FeatureView>,
    cache: Cache,
    /// Nothing is stored yet, most likely: the next batch doesn't ask.
    pub fresh: bool,
}

/// What became of a batch's events in a view.
#[derive(Debug, Default)]
pub struct Folded {
    pub counts: FoldCounts,
    pub null_keys: usize,
    pub failed: Vec<FailedEvent>,
}

impl Folded {
    /// Counts the events in the metrics of a view.
    pub(super) fn count(&self, metrics: &Metrics, view: &str) {
        for (outcome, n) in self.outcomes() {
            metrics.view_events.with_label_values(&[view, outcome]).inc_by(n as u64);
        }
    }

    /// How many events came to what.
    pub fn outcomes(&self) -> [(&'static str, usize); 6] {
        [
            ("folded", self.counts.folded),
            ("late", self.counts.late),
            ("duplicate", self.counts.duplicate),
            ("replayed", self.counts.skipped),
            ("null_key", self.null_keys),
            ("failed", self.failed.len()),
        ]
    }
}

impl ViewFold {
    pub fn new(view: Arc<FeatureView>, cache_bytes: usize) -> Self {
        Self { view, cache: Cache::new(cache_bytes), fresh: false }
    }

    /// Bytes of memory that it keeps between batches, about.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Forgets what is in memory of a partition, or of all.
    pub fn forget(&mut self, partition: Option<i32>) {
        match partition {
            Some(partition) => self.cache.forget(partition),
            None => self.cache.clear(),
        }
    }

    /// Folds a batch of one partition and stores the result. On an error nothing is half done: the caller may try the
    /// same batch again.
    pub async fn apply(&mut self, to: &Writing, partition: i32, events: &RecordBatch) -> Result<Folded, StreamError> {
        let mut rows = view_rows(&self.view, events)?;
        let failed = std::mem::take(&mut rows.failed);
        let grouped = group(&self.view, rows, partition)?;
        Ok(Folded { failed, ..self.fold(to, grouped).await? })
    }

    /// Folds rows and stores the result, as [`ViewFold::apply`] does.
    pub(super) async fn fold(&mut self, to: &Writing, grouped: Grouped) -> Result<Folded, StreamError> {
        let Grouped { batch, mut groups, null_keys } = grouped;
        let partition = batch.rows.partition;
        let mut folded = Folded { null_keys, ..Folded::default() };
        for _ in 0..FENCED_ATTEMPTS {
            if groups.is_empty() {
                return Ok(folded);
            }
            // Whose write is fenced is looked up.
            let fresh = std::mem::take(&mut self.fresh);
            groups = self.attempt(to, &batch, (groups, fresh), &mut folded.counts).await?;
        }
        Err(StreamError::Fenced { view: self.view.name.clone(), partition })
    }

    /// Folds and writes, a share of the keys at a time, so that a large batch takes no more memory than a small one, and one
    /// share computes while another waits for the store. Gives back the groups that a stale piece kept from being written.
    async fn attempt(
        &mut self,
        to: &Writing,
        batch: &Arc<Batch>,
        (groups, fresh): (Vec<Group>, bool),
        counts: &mut FoldCounts,
    ) -> Result<Vec<Group>, StreamError> {
        let partition = batch.rows.partition;
        let mut groups = groups.into_iter();
        let mut shares = JoinSet::new();
        let (mut fenced, mut failure) = (vec![], None);
        loop {
            while shares.len() < SHARES && failure.is_none() {
                let share: Vec<Group> = groups.by_ref().take(SHARE).collect();
                if share.is_empty() {
                    break;
                }
                let heads = share.iter().map(|(key, _)| self.cache.take(key, partition)).collect();
                let (view, to, batch) = (self.view.clone(), to.clone(), Arc::clone(batch));
                let fold = Share { view, to, partition, batch, fresh };
                shares.spawn(async move { fold.run(share, heads).await });
            }
            let Some(done) = shares.join_next().await else { break };
            match joined(done) {
                Ok(done) => {
                    *counts += done.counts;
                    fenced.extend(done.fenced);
                    done.heads.into_iter().for_each(|(key, head)| self.cache.put(key, partition, head));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(fenced), Err)
    }
}

/// A source's events with the columns that it had when a view was compiled: it may be an earlier version of the view, and the contract may have
/// grown since.
fn own_columns<'a>(view: &FeatureView, events: &'a RecordBatch) -> DfResult<Cow<'a, RecordBatch>> {
    let (own, given) = (view.source.schema.fields(), events.schema_ref().fields());
    if own.iter().zip(given).all(|(own, given)| own.name() == given.name())
        && given.len() == own.len() + META_COLUMNS.len()
    {
        return Ok(Cow::Borrowed(events));
    }
    let names = own.iter().map(|field| field.name().as_str()).chain(META_COLUMNS);
    let places = names.map(|name| events.schema_ref().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(Cow::Owned(events.project(&places)?))
}

/// A view's rows of source events, with the columns that the source had when the view was compiled.
pub(super) fn view_rows(view: &FeatureView, events: &RecordBatch) -> Result<ViewRows, StreamError> {
    let rows = own_columns(view, events).and_then(|events| view.rows(&events));
    rows.map_err(|source| StreamError::View { view: view.name.clone(), source })
}

/// What a task came to, which nothing aborts while somebody waits for it; or its panic.
pub(super) fn joined<T>(done: Result<T, JoinError>) -> T {
    done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
