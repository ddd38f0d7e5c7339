//! Views that fill from an archive that no longer has all of its past.
//!
//! Guarantee: the store says from when on such a view has every event, before it has absorbed the first event that comes after what is gone:
//! whoever finds the view's state finds that too. A view that needs all events is refused.

use super::error::StreamError;
use super::share::Writing;
use crate::online::{OnlineStore, ViewId, WriteOutcome};
use crate::plan::FeatureView;

/// Servers of a cluster may disagree, and others may fill the same view.
const ATTEMPTS: usize = 8;

pub(super) const HORIZON_OF: &str = "@horizon of ";

/// Under which the store keeps, by partition, from when on a view has every event: microseconds UTC, in place of an offset.
pub(super) fn horizon_id(view: &FeatureView) -> ViewId {
    ViewId { name: format!("{HORIZON_OF}{}", view.name), fingerprint: view.fingerprint.clone() }
}

/// From when on a view has every event, if some are missing.
pub(super) async fn horizon(store: &dyn OnlineStore, view: &FeatureView) -> Result<Option<i64>, StreamError> {
    Ok(store.progress(&horizon_id(view)).await?.into_values().max())
}

/// Remembers that a view lacks events before a horizon.
pub(super) async fn raise(to: &Writing, view: &FeatureView, partition: i32, horizon: i64) -> Result<(), StreamError> {
    if view.needs_all() {
        return Err(StreamError::Removed { view: view.name.clone(), why: view.beyond(horizon) });
    }
    let id = horizon_id(view);
    for _ in 0..ATTEMPTS {
        let held = to.store.progress(&id).await?.get(&partition).copied();
        if held.is_some_and(|held| held >= horizon) {
            return Ok(());
        }
        if let WriteOutcome::Written = to.store.set_progress(to.session, &id, partition, held, horizon).await? {
            return Ok(());
        }
    }
    Err(StreamError::Fenced { view: view.name.clone(), partition })
}

#[cfg(test)]
#[path = "horizon_tests.rs"]
mod tests;
