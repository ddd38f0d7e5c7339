//! How far the stream is, for readers: which views can be read, and how far behind the sources are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::online::ViewId;

/// Shared between the workers, which write it, and whoever answers requests.
#[derive(Debug, Default)]
pub struct Progress {
    views: Mutex<BTreeMap<ViewId, ViewProgress>>,
    /// Why a source's worker is waiting, while it is: a store or a disk that fails.
    stalled: Mutex<BTreeMap<String, String>>,
    /// Why a source's views can't be filled, while they can't; its stream goes on.
    stuck: Mutex<BTreeMap<String, String>>,
    lag: Mutex<BTreeMap<(String, i32), i64>>,
    /// Sources whose worker has looked at what there is.
    began: Mutex<BTreeSet<String>>,
    /// Since when every view of the project can be read.
    settled: Mutex<Option<Instant>>,
}

/// How far a view has absorbed its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewProgress {
    /// About how many events are still to absorb, by partition, before the view has caught up with what was archived when it was new.
    /// Empty when it can be read.
    pub missing: BTreeMap<i32, i64>,
}

impl Progress {
    /// Whether a view has its history; until then its values would be wrong.
    pub fn filled(&self, view: &ViewId) -> bool {
        lock(&self.views).get(view).is_some_and(|v| v.missing.is_empty())
    }

    /// Views that fill, with the events that they still have to absorb.
    pub fn filling(&self) -> BTreeMap<ViewId, i64> {
        let views = lock(&self.views);
        views
            .iter()
            .filter(|(_, v)| !v.missing.is_empty())
            .map(|(id, v)| (id.clone(), v.missing.values().sum()))
            .collect()
    }

    pub fn stalled(&self) -> BTreeMap<String, String> {
        lock(&self.stalled).clone()
    }

    /// Why views of a source can't be filled, if they can't.
    pub fn stuck(&self, source: &str) -> Option<String> {
        lock(&self.stuck).get(source).cloned()
    }

    /// About how many events behind, by source and partition.
    pub fn lag(&self) -> BTreeMap<(String, i32), i64> {
        lock(&self.lag).clone()
    }

    /// Whether a source's worker has looked at what there is.
    pub fn began(&self, source: &str) -> bool {
        lock(&self.began).contains(source)
    }

    pub(super) fn begin(&self, source: &str) {
        lock(&self.began).insert(source.to_owned());
    }

    /// Every view of the project can be read, and whoever comes next is told so: what was served in their place is not needed here.
    pub fn settle(&self) {
        lock(&self.settled).get_or_insert_with(Instant::now);
    }

    /// How long ago that was.
    pub(super) fn settled(&self) -> Option<Duration> {
        lock(&self.settled).map(|since| since.elapsed())
    }

    pub(super) fn set_view(&self, view: ViewId, progress: ViewProgress) {
        lock(&self.views).insert(view, progress);
    }

    pub(super) fn drop_view(&self, view: &ViewId) {
        lock(&self.views).remove(view);
    }

    pub(super) fn set_lag(&self, source: &str, partition: i32, lag: i64) {
        lock(&self.lag).insert((source.to_owned(), partition), lag);
    }

    /// For a partition that another instance reads from now on.
    pub(super) fn drop_lag(&self, source: &str, partition: i32) {
        lock(&self.lag).remove(&(source.to_owned(), partition));
    }

    pub(super) fn set_stuck(&self, source: &str, why: Option<String>) {
        set(&self.stuck, source, why);
    }

    pub(super) fn stall(&self, source: &str, why: Option<String>) {
        set(&self.stalled, source, why);
    }
}

fn set(reasons: &Mutex<BTreeMap<String, String>>, source: &str, why: Option<String>) {
    let mut reasons = lock(reasons);
    match why {
        Some(why) => reasons.insert(source.to_owned(), why),
        None => reasons.remove(source),
    };
}

/// A writer that panicked left whole values behind: each is one insert.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
