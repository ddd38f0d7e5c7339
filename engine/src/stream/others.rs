//! What other instances do with the same store: how far they are, and what nobody needs any more.
//!
//! Guarantees: a worker learns within a second that the store lost what it is believed to have. A version of a view is dropped only once
//! nobody has written to it for the length of a roll-out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::error::StreamError;
use super::known::{HISTORY_OF, history_id};
use super::worker::{Held, Worker, source_id};
use crate::offline::HISTORY;
use crate::online::{StoreError, ViewId};
use crate::request::{HORIZON_OF, horizon_id};

/// How often to look how far other instances are with a view that fills.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Whether the partitions that others read are absorbed up to where the source ended when this worker began. An
    /// instance that died has its partitions until Kafka misses it.
    pub(super) async fn others_are_done(&mut self) -> Result<bool, StreamError> {
        let committed = self.store.progress(&source_id(self.source.name())).await?;
        let done = |partition: &i32, end: i64| committed.get(partition).is_some_and(|next| *next >= end);
        Ok(self.ends.iter().all(|(p, end)| self.owned.contains_key(p) || *end == 0 || done(p, *end)))
    }

    /// Whether a view waits for partitions that other instances read.
    fn waits_for_others(&self) -> bool {
        self.views.iter().any(|view| view.missing().iter().any(|(p, _, _)| !self.owned.contains_key(p)))
    }

    pub(super) fn looks_again_in(&self) -> Duration {
        let since = self.looked.map_or(LOOK_EVERY, |looked| looked.elapsed());
        LOOK_EVERY.saturating_sub(since)
    }

    /// Looks whether the store still has what it is believed to have, though nothing may be written for long; and how
    /// far other instances are with views that fill.
    pub(super) async fn look_around(&mut self) -> Result<(), StreamError> {
        if !self.looks_again_in().is_zero() {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let id = source_id(self.source.name());
        let committed = self.store.progress(&id).await?;
        for (partition, owned) in &self.owned {
            if committed.get(partition).is_none_or(|held| *held < owned.committed) {
                return Err(StreamError::StateLost { view: id.name, partition: *partition });
            }
        }
        for view in &self.views {
            let held = self.store.progress(&view.fold.view.id()).await?;
            let lost = |(partition, stored): &(&i32, &i64)| {
                (self.owned.contains_key(partition) || **partition == HISTORY)
                    && held.get(partition).is_none_or(|held| held < stored)
            };
            if let Some((partition, _)) = view.stored.iter().find(lost) {
                return Err(StreamError::StateLost { view: view.fold.view.name.clone(), partition: *partition });
            }
        }
        if Some(self.store.session().await?) != self.session {
            // The next step takes everything over anew.
            return Err(StreamError::Store(StoreError::SessionEnded { at: self.name() }));
        }
        self.tidy().await?;
        if !self.waits_for_others() {
            return Ok(());
        }
        for view in &mut self.views {
            let id = view.fold.view.id();
            view.history = self.store.progress(&history_id(&view.fold.view)).await?;
            for (partition, next) in self.store.progress(&id).await? {
                if !self.owned.contains_key(&partition) {
                    view.stored.insert(partition, next);
                }
            }
        }
        self.report_views().await
    }

    /// Forgets the other versions of views that are filled. In a store that others use, or where one of them was served, not before the
    /// project's own have been live for a while, and only those that nobody has written to meanwhile.
    pub(super) async fn tidy(&mut self) -> Result<(), StreamError> {
        if self.tidied || self.catches_up() || self.views.iter().any(|view| !view.missing().is_empty()) {
            return Ok(());
        }
        let waits = self.store.shared() || !self.retained.is_empty();
        if waits && self.progress.settled().is_none() {
            return Ok(());
        }
        let after = if waits { self.config.retire_after } else { Duration::ZERO };
        match &self.doomed {
            None => {
                let since = Instant::now();
                self.doomed = Some((self.others().await?, since));
                if !after.is_zero() {
                    return Ok(());
                }
            }
            Some((_, since)) if since.elapsed() < after => return Ok(()),
            Some(_) => {}
        }
        // Nobody here reads them any more.
        self.views.retain(|view| !self.retained.contains(&view.fold.view.id()));
        let before = self.doomed.take().map(|(before, _)| before).unwrap_or_default();
        let mut left = false;
        let others = self.others().await?;
        // What is remembered of a version goes with it, and after it.
        let (of_versions, versions): (Vec<&ViewId>, Vec<&ViewId>) = others.keys().partition(|id| version(id) != **id);
        for id in versions.into_iter().chain(of_versions) {
            let version = version(id);
            // Another instance keeps it, or fills it.
            if before.get(&version) != others.get(&version) && !self.retained.contains(&version) {
                left = true;
                continue;
            }
            self.progress.drop_view(id);
            self.store.drop_view(id).await?;
        }
        self.retained.clear();
        self.tidied = !left;
        Ok(())
    }

    /// Other versions of the views, and how far they are.
    async fn others(&self) -> Result<Held, StreamError> {
        let views = self.views.iter().map(|view| &view.fold.view).filter(|view| !self.retained.contains(&view.id()));
        let current: Vec<ViewId> =
            views.flat_map(|view| [view.id(), history_id(view), horizon_id(&view.id())]).collect();
        let mut others = BTreeMap::new();
        for id in self.store.views().await? {
            let other = self.retained.contains(&version(&id)) || current.iter().any(|current| current.name == id.name);
            if other && !current.contains(&id) {
                let held = self.store.progress(&id).await?;
                others.insert(id, held);
            }
        }
        Ok(others)
    }
}

/// The version of a view that something is remembered of; itself, if it is one.
fn version(id: &ViewId) -> ViewId {
    let name = [HISTORY_OF, HORIZON_OF].iter().find_map(|of| id.name.strip_prefix(of)).unwrap_or(&id.name);
    ViewId { name: name.to_owned(), fingerprint: id.fingerprint.clone() }
}
