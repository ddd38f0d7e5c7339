//! Commits: what makes a stretch of events durable, and what is forgotten when that failed.

use std::collections::BTreeMap;

use futures::future::try_join_all;

use super::error::StreamError;
use super::worker::{Summary, Worker, source_id};
use crate::online::{Session, ViewId, WriteOutcome};

impl Worker {
    /// Makes everything absorbed durable: dead letters and archive first, then the state, then the offsets with it.
    pub(super) async fn commit(&mut self) -> Result<(), StreamError> {
        if self.pending == 0 {
            return Ok(());
        }
        let timer = self.metrics.commit_seconds.start_timer();
        let session = self.session.ok_or_else(|| self.not_begun())?;
        // Letters come before the archive: below its end, what was refused is never read again.
        self.dead_letters.flush().await?;
        if let Some(archive) = &mut self.archive {
            archive.flush().await?;
        }
        let mut steps = vec![];
        for view in &self.views {
            for (partition, next) in view.at.iter().filter_map(|(partition, at)| Some((partition, at.fed()?))) {
                // A view may be ahead of the others. What it refused beyond that is in no letter yet: it reads it again.
                let kept = self.owned.get(partition).map_or(next, |owned| owned.next.min(next));
                let stored = view.stored.get(partition).copied();
                if stored.is_none_or(|stored| stored < kept) {
                    steps.push((view.fold.view.id(), *partition, stored, kept));
                }
            }
        }
        self.progressed(session, steps.clone()).await?;
        for (id, partition, _, kept) in steps {
            let of_view = self.views.iter_mut().filter(|view| view.fold.view.id() == id);
            of_view.for_each(|view| _ = view.stored.insert(partition, kept));
        }
        let id = source_id(self.source.name());
        let behind = self.owned.iter().filter(|(_, owned)| owned.next > owned.committed);
        let steps = behind.map(|(p, owned)| (id.clone(), *p, Some(owned.committed), owned.next)).collect();
        self.progressed(session, steps).await?;
        let mut committed = BTreeMap::new();
        for (partition, owned) in &mut self.owned {
            owned.committed = owned.committed.max(owned.next);
            committed.insert(*partition, owned.committed);
        }
        self.store.flush().await?;
        for (partition, next) in &committed {
            self.metrics.committed.with_label_values(&[self.source.name(), &partition.to_string()]).set(*next);
        }
        self.source.commit(&committed).await?;
        self.pending = 0;
        self.pending_since = None;
        let Summary { events, rejected, .. } = std::mem::take(&mut self.uncommitted);
        self.summary.events += events;
        self.summary.rejected += rejected;
        self.summary.commits += 1;
        timer.observe_duration();
        self.hand_over().await?;
        self.tidy().await
    }

    /// Takes steps of progress, each (whose, partition, from, to), all at once.
    async fn progressed(
        &self,
        session: Session,
        steps: Vec<(ViewId, i32, Option<i64>, i64)>,
    ) -> Result<(), StreamError> {
        let steps = steps.into_iter().map(async |(id, partition, from, to)| {
            match self.store.set_progress(session, &id, partition, from, to).await? {
                WriteOutcome::Written => Ok(()),
                WriteOutcome::Fenced { holds } => {
                    // Less than there was: the store lost it, and what was written since stands on nothing. It must not be taken for
                    // what somebody else fills. (More than there was is a new owner's.)
                    if holds < from {
                        self.store.drop_partitions(&[(id.clone(), [(partition, holds)].into())].into()).await?;
                    }
                    Err(StreamError::StateLost { view: id.name, partition })
                }
            }
        });
        try_join_all(steps).await.map(|_| ())
    }

    /// Forgets everything that it remembers of the store and the archive. The next step reads it anew.
    pub(super) fn begin_again(&mut self, error: &StreamError) {
        if let StreamError::StateLost { .. } = error {
            // What is left of the views can't be read: whoever asks is told to wait.
            self.views.iter().for_each(|view| self.progress.drop_view(&view.fold.view.id()));
        }
        self.session = None;
        self.let_go();
    }

    /// Forgets what it read and did not commit, and where it was: it is read again.
    pub(super) fn let_go(&mut self) {
        if let Some(archive) = &mut self.archive {
            // Whoever has them by then writes what was on the way.
            self.owned.keys().for_each(|partition| archive.release(*partition));
        }
        self.owned.clear();
        self.letters.clear();
        self.pending = 0;
        self.pending_since = None;
        self.uncommitted = Summary::default();
        self.catch_up.stop();
        for view in &mut self.views {
            view.at.clear();
            view.fold.forget(None);
        }
    }
}
