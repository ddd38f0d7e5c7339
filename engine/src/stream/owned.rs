//! Which partitions a worker owns, and where it begins with each.
//!
//! Guarantees: a partition begins where the archive ends (or the commit, for files, which are their own archive); a view that lacks what lies before fills from it (see
//! [`super::catch_up`]). Where each is, the store and the archive say *now*: never as a worker remembers it from before it
//! lost the partition, or from before the store was restarted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::error::StreamError;
use super::known::known;
use super::progress::ViewProgress;
use super::share::Writing;
use super::worker::{At, Owned, View, Worker, source_id};
use crate::offline::{ArchiveWriter, HISTORY};
use crate::online::{Session, ViewId, WriteOutcome};

impl View {
    /// What each partition still has of its history: from one offset to another.
    pub fn missing(&self) -> Vec<(i32, i64, i64)> {
        let held = |partition: &i32| {
            let known = self.at.get(partition).map(|at| at.next()).or(self.stored.get(partition).copied());
            known.unwrap_or(0)
        };
        let missing = self.history.iter().map(|(partition, end)| (*partition, held(partition), *end));
        missing.filter(|(_, held, end)| held < end).collect()
    }
}

impl Worker {
    /// Takes over the partitions that are new, and lets go of those that are gone.
    pub(super) async fn own(&mut self, partitions: &[i32]) -> Result<(), StreamError> {
        let gone: Vec<i32> = self.owned.keys().filter(|p| !partitions.contains(p)).copied().collect();
        for partition in gone {
            self.release(partition);
        }
        let fresh: Vec<i32> = partitions.iter().filter(|p| !self.owned.contains_key(p)).copied().collect();
        if fresh.is_empty() && self.session.is_some() {
            return Ok(());
        }
        self.drop_lags(partitions);
        self.admit(fresh).await
    }

    /// A worker that began again no longer knows which partitions it had. Those that it lost meanwhile are others', and their
    /// lag is for others to report.
    fn drop_lags(&self, partitions: &[i32]) {
        for (source, partition) in self.progress.lag().into_keys() {
            if source == self.source.name() && !partitions.contains(&partition) {
                self.drop_lag(partition);
            }
        }
    }

    fn drop_lag(&self, partition: i32) {
        self.progress.drop_lag(self.source.name(), partition);
        let _ = self.metrics.lag.remove_label_values(&[self.source.name(), &partition.to_string()]);
    }

    fn release(&mut self, partition: i32) {
        self.owned.remove(&partition);
        self.letters.remove(&partition);
        if let Some(archive) = &mut self.archive {
            archive.release(partition);
        }
        self.dead_letters.release(partition);
        self.catch_up.stop();
        for view in &mut self.views {
            view.at.remove(&partition);
            view.fold.forget(Some(partition));
        }
        self.drop_lag(partition);
    }

    async fn admit(&mut self, mut fresh: Vec<i32>) -> Result<(), StreamError> {
        // The session comes first: what is read after it is what the session's writes are fenced by.
        let session = self.store.session().await?;
        if self.session.is_some_and(|known| known != session) {
            fresh.extend(self.owned.keys());
            self.let_go();
        }
        if let Some(archive) = &mut self.archive {
            archive.adopt(&fresh).await?;
        }
        self.source.begin(&fresh).await?;
        self.check_source(&fresh).await?;
        let all = self.source.all_partitions().await?;
        let mut ends = BTreeMap::new();
        for partition in all.iter().chain(&fresh) {
            ends.insert(*partition, self.source.end_offset(*partition).await?);
        }
        if self.ends.is_empty() {
            self.ends = ends.clone();
        }
        let source = self.name();
        let starts = self.starts(session, &start_id(&source), &fresh).await?;
        let committed = self.commits(session, &source_id(&source), &starts).await?;
        let past = self.archived().unwrap_or_else(|| committed.clone());
        self.let_go_of_dropped().await?;
        // Of several instances the one that has the first partition fills from the history, which is nobody's.
        let fills = all.iter().min().is_none_or(|first| fresh.contains(first));
        self.admit_views(session, &starts, (&past, &ends), fills).await?;
        for (partition, start) in starts {
            let committed = committed.get(&partition).copied().unwrap_or(start);
            let next = past.get(&partition).copied().unwrap_or(0).max(start);
            self.owned.insert(partition, Owned { next, committed });
            if next > committed {
                // What was durable before a crash is committed again, though nothing may come any more.
                self.pending += 1;
                self.pending_since.get_or_insert_with(Instant::now);
            }
            self.report_lag(partition).await?;
        }
        self.session = Some(session);
        self.progress.begin(self.source.name());
        self.report_views().await
    }

    /// What the store remembers of the source's partitions under an id. Of those that are new, where they start: at the
    /// archive's beginning, or where the source's definition says.
    async fn starts(
        &mut self,
        session: Session,
        id: &ViewId,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>, StreamError> {
        let stored = self.store.progress(id).await?;
        // A partition that a source got later is read from its beginning: `start` is about what there was at first.
        let known_source = !stored.is_empty();
        let archived = self.archived().unwrap_or_default();
        let mut known = BTreeMap::new();
        for partition in partitions {
            let next = match stored.get(partition) {
                Some(next) => *next,
                None => {
                    let start = match archived.get(partition) {
                        Some(end) if *end > 0 => 0,
                        _ if known_source => 0,
                        _ => self.source.start_offset(*partition).await?,
                    };
                    match self.store.set_progress(session, id, *partition, None, start).await? {
                        WriteOutcome::Fenced { holds: Some(holds) } => holds,
                        _ => start,
                    }
                }
            };
            known.insert(*partition, next);
        }
        Ok(known)
    }

    /// The committed offsets of partitions; those that have none are committed up to where they start.
    async fn commits(
        &mut self,
        session: Session,
        id: &ViewId,
        starts: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>, StreamError> {
        let mut committed = self.store.progress(id).await?;
        for (partition, start) in starts.iter().filter(|(p, _)| !committed.contains_key(p)).collect::<Vec<_>>() {
            let set = self.store.set_progress(session, id, *partition, None, *start).await?;
            if let WriteOutcome::Fenced { .. } = set {
                return Err(StreamError::Fenced { view: id.name.clone(), partition: *partition });
            }
            committed.insert(*partition, *start);
        }
        Ok(committed)
    }

    /// By partition, the offset below which every event is in the archive, which is asked itself: files that are gone since the
    /// commit come back from the source. None for files, which are their own archive.
    fn archived(&self) -> Option<BTreeMap<i32, i64>> {
        self.archive.as_ref().map(ArchiveWriter::durable)
    }

    /// By partition, the offset below which every event is read from the past, and from which on from the source.
    pub(super) fn past_ends(&self) -> BTreeMap<i32, i64> {
        let committed = || self.owned.iter().map(|(partition, owned)| (*partition, owned.committed)).collect();
        let mut ends = self.archived().unwrap_or_else(committed);
        ends.extend(self.past.history().map(|history| (HISTORY, history.end())));
        ends
    }

    /// About how many events lie between two offsets.
    pub(super) async fn between(&mut self, partition: i32, from: i64, to: i64) -> Result<i64, StreamError> {
        match self.past.history().filter(|_| partition == HISTORY) {
            Some(history) => Ok(history.between(from, to)),
            None if partition == HISTORY => Ok(to.saturating_sub(from).max(0)),
            None => Ok(self.source.between(partition, from, to).await?),
        }
    }

    /// Another instance may have dropped what was live before: nobody is to fill it again.
    async fn let_go_of_dropped(&mut self) -> Result<(), StreamError> {
        for id in self.retained.clone() {
            if self.store.progress(&id).await?.is_empty() {
                self.retained.remove(&id);
                self.views.retain(|view| view.fold.view.id() != id);
                self.progress.drop_view(&id);
            }
        }
        Ok(())
    }

    async fn admit_views(
        &mut self,
        session: Session,
        starts: &BTreeMap<i32, i64>,
        (past, ends): (&BTreeMap<i32, i64>, &BTreeMap<i32, i64>),
        fills: bool,
    ) -> Result<(), StreamError> {
        let to = Writing { store: Arc::clone(&self.store), session };
        let history = self.past.history().map(|history| history.end());
        // An earlier version of a view had a history of its own, and has all of it, or isn't read.
        for earlier in [true, false] {
            let retained = |view: &View| self.retained.contains(&view.fold.view.id());
            let (mut starts, mut past, mut ends) = (starts.clone(), past.clone(), ends.clone());
            if let Some(end) = history.filter(|_| !earlier) {
                ends.insert(HISTORY, end);
                past.insert(HISTORY, end);
                starts.extend(fills.then_some((HISTORY, 0)));
            }
            let mut views: Vec<&mut View> = self.views.iter_mut().filter(|view| retained(view) == earlier).collect();
            let of: Vec<_> = views.iter().map(|view| Arc::clone(&view.fold.view)).collect();
            let known = known(&to, &of, &starts, &ends).await?;
            for (view, known) in views.iter_mut().zip(known) {
                (view.stored, view.history) = (known.stored, known.history);
                for (partition, start) in &starts {
                    view.fold.forget(Some(*partition));
                    let next = view.stored.get(partition).copied().unwrap_or(*start);
                    let behind = next < past.get(partition).copied().unwrap_or(0);
                    view.at.insert(*partition, if behind { At::Filling(next) } else { At::Fed(next) });
                }
            }
        }
        Ok(())
    }

    /// New events in a source that was emptied would have old offsets, and be skipped in silence.
    async fn check_source(&mut self, partitions: &[i32]) -> Result<(), StreamError> {
        let mut held = self.archived().unwrap_or_default();
        for (partition, committed) in self.store.progress(&source_id(self.source.name())).await? {
            let held = held.entry(partition).or_insert(0);
            *held = (*held).max(committed);
        }
        for partition in partitions {
            let held = held.get(partition).copied().unwrap_or(0);
            let end = self.source.end_offset(*partition).await?;
            if held > end {
                return Err(StreamError::LogBehind { source_name: self.name(), partition: *partition, held, end });
            }
        }
        Ok(())
    }

    /// A view is filled once it has absorbed everything that the source held when the view was new.
    pub(super) async fn report_views(&mut self) -> Result<(), StreamError> {
        let lacks: Vec<_> = self.views.iter().map(View::missing).collect();
        let mut all = vec![];
        for lacks in lacks {
            let mut missing = BTreeMap::new();
            for (partition, from, to) in lacks {
                missing.insert(partition, self.between(partition, from, to).await?);
            }
            all.push(missing);
        }
        for (view, missing) in self.views.iter().zip(all) {
            let (name, id) = (&view.fold.view.name, view.fold.view.id());
            if !self.retained.contains(&id) {
                self.metrics.filling.with_label_values(&[name]).set(i64::from(!missing.is_empty()));
                self.metrics.cache.with_label_values(&[name]).set(i64::try_from(view.fold.bytes()).unwrap_or(i64::MAX));
            }
            self.progress.set_view(id, ViewProgress { missing });
        }
        Ok(())
    }

    pub(super) async fn report_lag(&mut self, partition: i32) -> Result<(), StreamError> {
        let end = self.source.end_offset(partition).await?;
        let next = self.owned.get(&partition).map_or(0, |owned| owned.next);
        // A view that is read, and is behind, is what the answers depend on.
        let read = self.views.iter().filter(|view| view.missing().is_empty());
        let next = read.filter_map(|view| view.at.get(&partition)?.filling()).fold(next, i64::min);
        let lag = self.source.between(partition, next, end).await?;
        self.progress.set_lag(self.source.name(), partition, lag);
        self.metrics.lag.with_label_values(&[self.source.name(), &partition.to_string()]).set(lag);
        Ok(())
    }
}

/// Under which the store keeps where a source's partitions began.
fn start_id(source: &str) -> ViewId {
    ViewId { name: format!("@{source}"), fingerprint: "start".to_owned() }
}
