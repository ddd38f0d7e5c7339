//! Batches into all views of a source, then into its archive and dead letters.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::StreamError;
use super::events::{dead_letter, since};
use super::fold::{Folded, joined};
use super::share::Writing;
use super::worker::{At, Worker};
use crate::source::{Reject, SourceBatch};

/// Views that fold a long batch at once: enough for both sides, one that computes and one that waits for the store, on a few cores.
/// More would only take memory.
pub const VIEWS_AT_ONCE: usize = 2;

impl Worker {
    /// Takes batches in, each of another partition. On an error, those before the one that failed are taken in.
    pub(super) async fn absorb(&mut self, batches: &[SourceBatch]) -> Result<(), StreamError> {
        let timer = self.metrics.batch_seconds.start_timer();
        for batch in batches {
            let archived = self.committed(batch.partition);
            let letters = self.letters.entry(batch.partition).or_default();
            for reject in batch.rejects.iter().filter(|r| r.offset >= archived) {
                letters.entry(reject.offset).or_insert_with(|| reject.clone());
            }
        }
        // What succeeded is recorded before what failed is reported: it isn't done again.
        let Absorbed { folded, whole, failure } = self.fold(batches).await?;
        for (batch, name, folded) in folded {
            folded.count(&self.metrics, &name);
            let Some(batch) = batches.get(batch) else { continue };
            let archived = self.committed(batch.partition);
            let letters = self.letters.entry(batch.partition).or_default();
            for failed in folded.failed.iter().filter(|f| f.offset >= archived) {
                dead_letter(letters, &name, failed, &batch.events)?;
            }
        }
        for batch in batches.iter().take(whole) {
            self.keep(batch).await?;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        timer.observe_duration();
        self.report_views().await
    }

    /// What every view has absorbed goes to the archive, and what was refused of it to the dead letters.
    async fn keep(&mut self, batch: &SourceBatch) -> Result<(), StreamError> {
        let source = self.name();
        let fresh = since(&batch.events, self.committed(batch.partition), batch.first_offset)?;
        if let Some(archive) = &mut self.archive {
            // Not sooner: below the archive's end nothing is refused any more, so its letters must be known.
            archive.append(batch.partition, &batch.events, batch.next_offset).await?;
        }
        let rejects: Vec<Reject> = self.letters.remove(&batch.partition).unwrap_or_default().into_values().collect();
        self.uncommitted.events += fresh.num_rows() as u64;
        self.uncommitted.rejected += rejects.len() as u64;
        self.metrics.events.with_label_values(&[&source]).inc_by(fresh.num_rows() as u64);
        self.metrics.rejected.with_label_values(&[&source]).inc_by(rejects.len() as u64);
        self.dead_letters.append(batch.partition, &rejects);
        self.pending += fresh.num_rows() + rejects.len() + usize::from(fresh.num_rows() == 0);
        self.pending_since.get_or_insert_with(Instant::now);
        if let Some(owned) = self.owned.get_mut(&batch.partition) {
            owned.next = batch.next_offset;
        }
        Ok(())
    }

    fn committed(&self, partition: i32) -> i64 {
        self.owned.get(&partition).map_or(0, |owned| owned.committed)
    }

    /// Folds batches into every view that lacks them, each view in a task of its own; short ones all at once, long ones a few at a time. Those that
    /// succeed have them, whatever becomes of the others.
    async fn fold(&mut self, batches: &[SourceBatch]) -> Result<Absorbed, StreamError> {
        let session = self.session.ok_or_else(|| self.not_begun())?;
        let to = Writing { store: self.store.clone(), session };
        let mut folds = JoinSet::new();
        let most = VIEWS_AT_ONCE * self.config.max_records;
        let room = Arc::new(Semaphore::new(most));
        for (place, mut view) in std::mem::take(&mut self.views).into_iter().enumerate() {
            let (to, room) = (to.clone(), Arc::clone(&room));
            let batches: Vec<_> = batches
                .iter()
                .map(|batch| (batch.partition, batch.first_offset, batch.next_offset, batch.events.clone()))
                .collect();
            folds.spawn(async move {
                let mut folded = vec![];
                let mut failure = None;
                for (partition, first, to_offset, events) in batches {
                    // What it fills from the archive, it will find there.
                    let Some(next) = view.at.get(&partition).and_then(|at| at.fed()) else {
                        folded.push(None);
                        continue;
                    };
                    // Nothing closes it: there is no error.
                    let rows = u32::try_from(events.num_rows().min(most)).unwrap_or(u32::MAX);
                    let _room = room.acquire_many(rows).await;
                    let of_batch = match since(&events, next, first) {
                        _ if to_offset <= next => Ok(None),
                        Ok(events) => view.fold.apply(&to, partition, &events).await.map(Some),
                        Err(error) => Err(error),
                    };
                    match of_batch {
                        Ok(of_batch) => folded.push(of_batch),
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                    view.at.insert(partition, At::Fed(next.max(to_offset)));
                }
                (place, view, folded, failure)
            });
        }
        let mut absorbed = Absorbed { folded: vec![], whole: batches.len(), failure: None };
        let mut views = vec![];
        while let Some(done) = folds.join_next().await {
            let (place, view, folded, failure) = joined(done);
            absorbed.whole = absorbed.whole.min(folded.len());
            absorbed.failure = absorbed.failure.or(failure);
            // What was live before has no letters and no counts of its own: the project's version says what becomes of an event.
            let told = !self.retained.contains(&view.fold.view.id());
            let folded = folded.into_iter().enumerate().filter_map(|(batch, folded)| Some((batch, folded?)));
            let folded = folded.filter(|_| told);
            absorbed.folded.extend(folded.map(|(batch, folded)| (batch, view.fold.view.name.clone(), folded)));
            views.push((place, view));
        }
        views.sort_by_key(|(place, _)| *place);
        self.views = views.into_iter().map(|(_, view)| view).collect();
        Ok(absorbed)
    }
}

/// What became of batches.
struct Absorbed {
    /// By batch and view.
    folded: Vec<(usize, String, Folded)>,
    /// So many of the batches, from the first on, are in every view.
    whole: usize,
    failure: Option<StreamError>,
}

#[cfg(test)]
#[path = "absorb_tests.rs"]
mod tests;
