//! What the store knows of a view, and what it is told when the view is new.
//!
//! Guarantees: whoever comes first says what the view's history is, and where it begins. State without progress (somebody emptied
//! the store while it was written to) is never built on: it is dropped first. Of several who come at the same time one is the first, and the
//! others come again.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Looks up views, and enters each for partitions for which it is new: these begin at `starts`, and `ends` is what there is.
pub(super) async fn known(
    to: &Writing,
    views: &[Arc<FeatureView>],
    starts: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
) -> Result<Vec<Known>, StreamError> {
    let Writing { store, session } = to;
    let (mut all, mut new) = (vec![], BTreeMap::new());
    for view in views {
        let stored = store.progress(&view.id()).await?;
        if stored.is_empty() {
            enter_history(to, &history_id(view), ends).await?;
        }
        let lacking: BTreeMap<i32, Option<i64>> =
            starts.keys().filter(|p| !stored.contains_key(p)).map(|p| (*p, None)).collect();
        if !lacking.is_empty() {
            new.insert(view.id(), lacking);
        }
        all.push(stored);
    }
    // Of all at once: a store may have to look at every key. Whoever entered one meanwhile is not disturbed.
    store.drop_partitions(&new).await?;
    let mut known = vec![];
    for (view, mut stored) in views.iter().zip(all) {
        for partition in new.remove(&view.id()).unwrap_or_default().into_keys() {
            let start = starts.get(&partition).copied().unwrap_or(0);
            match store.set_progress(*session, &view.id(), partition, None, start).await? {
                WriteOutcome::Written => stored.insert(partition, start),
                WriteOutcome::Fenced { .. } => {
                    return Err(StreamError::Fenced { view: view.name.clone(), partition });
                }
            };
        }
        known.push(Known { stored, history: store.progress(&history_id(view)).await? });
    }
    Ok(known)
}

/// What is left of a history that a server lost would say that less is missing: it is raised. Of a cluster's servers some may have
/// lost theirs, so that the first time makes them one.
async fn enter_history(to: &Writing, id: &ViewId, ends: &BTreeMap<i32, i64>) -> Result<(), StreamError> {
    for _ in 0..2 {
        let history = to.store.progress(id).await?;
        for (partition, end) in ends {
            let held = history.get(partition).copied();
            if held.is_none_or(|held| held < *end) {
                to.store.set_progress(to.session, id, *partition, held, *end).await?;
            }
        }
    }
    Ok(())
}

pub(super) const HISTORY_OF: &str = "@history of ";

/// Under which the store keeps what a source held when a view was new.
pub(super) fn history_id(view: &FeatureView) -> ViewId {
    ViewId { name: format!("{HISTORY_OF}{}", view.name), fingerprint: view.fingerprint.clone() }
}
