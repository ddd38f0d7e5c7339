//! Views that fill from an archive that no longer has all of its past.
//!
//! Guarantee: the store says from when on such a view has every event, and whoever reads the view has heard of it, before it absorbs the first
//! event that comes after what is gone. A view that needs all events is refused.

use super::error::StreamError;
use super::share::Writing;
use crate::online::WriteOutcome;
use crate::plan::FeatureView;
use crate::request::horizon_id;

/// Servers of a cluster may disagree, and others may fill the same view.
const ATTEMPTS: usize = 8;

/// Remembers that a view lacks events before a horizon.
pub(super) async fn raise(to: &Writing, view: &FeatureView, partition: i32, horizon: i64) -> Result<(), StreamError> {
    if view.needs_all() {
        return Err(StreamError::Removed { view: view.name.clone(), why: view.beyond(horizon) });
    }
    let id = horizon_id(&view.id());
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
