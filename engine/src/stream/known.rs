//! What the store knows of a view, and what it is told when the view is new.
//!
//! Guarantees: whoever comes first says what the view's history is, and where it begins. State without progress (somebody emptied
//! the store while it was written to) is never built on: it is dropped first. Of several who come at the same time one is the first, and the
//! others come again.

use std::collections::BTreeMap;

use super::error::StreamError;
use super::share::Writing;
use crate::online::{ViewId, WriteOutcome};
use crate::plan::FeatureView;

/// By partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Offset after the last event that the view has absorbed.
    pub stored: BTreeMap<i32, i64>,
    /// What there was when it was new.
    pub history: BTreeMap<i32, i64>,
}

/// Looks up a view, and enters it for partitions for which it is new: these begin at `starts`, and `ends` is what there is.
pub(super) async fn known(
    to: &Writing,
    view: &FeatureView,
    starts: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
) -> Result<Known, StreamError> {
    let Writing { store, session } = to;
    let (id, history_id) = (view.id(), history_id(view));
    let mut stored = store.progress(&id).await?;
    if stored.is_empty() {
        // What is left of one that a server lost would say that less is missing: it is raised. Of a cluster's servers some may have lost
        // theirs, so that the first time makes them one.
        for _ in 0..2 {
            let history = store.progress(&history_id).await?;
            for (partition, end) in ends {
                let held = history.get(partition).copied();
                if held.is_none_or(|held| held < *end) {
                    store.set_progress(*session, &history_id, *partition, held, *end).await?;
                }
            }
        }
    }
    let new: Vec<i32> = starts.keys().filter(|p| !stored.contains_key(p)).copied().collect();
    if !new.is_empty() {
        store.drop_partitions(&id, &new).await?;
    }
    for partition in new {
        let start = starts.get(&partition).copied().unwrap_or(0);
        match store.set_progress(*session, &id, partition, None, start).await? {
            WriteOutcome::Written => stored.insert(partition, start),
            WriteOutcome::Fenced { .. } => return Err(StreamError::Fenced { view: id.name, partition }),
        };
    }
    Ok(Known { stored, history: store.progress(&history_id).await? })
}

/// Under which the store keeps what a source held when a view was new.
pub(super) fn history_id(view: &FeatureView) -> ViewId {
    ViewId { name: format!("@history of {}", view.name), fingerprint: view.fingerprint.clone() }
}
