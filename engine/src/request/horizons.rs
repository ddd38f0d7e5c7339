//! Which views lack old events: those that filled from an archive when it no longer had them.
//!
//! Guarantee: an answer goes by a horizon that was looked up after the store had it, if one of its pieces has an event behind what is gone.
//! Who raises a horizon waits for [`HEARD`] before it folds the first such event, and who reads believes what it saw for [`BELIEVED`] at the
//! most, measured when it has read the pieces. So a reader that is slow looks again, and one that can't look doesn't answer.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::online::{OnlineStore, StoreError, ViewId};

/// How long a reader believes what it saw.
const BELIEVED: Duration = Duration::from_secs(1);

/// How long after a horizon was raised everybody goes by it; longer than they believe what they saw, since no two clocks run alike.
pub const HEARD: Duration = Duration::from_secs(3);

/// What the names of horizons begin with.
pub const HORIZON_OF: &str = "@horizon of ";

/// Under which the store keeps, by partition, from when on a view has every event: microseconds UTC, in place of an offset.
pub fn horizon_id(view: &ViewId) -> ViewId {
    ViewId { name: format!("{HORIZON_OF}{}", view.name), fingerprint: view.fingerprint.clone() }
}

/// The horizons of views, as their store has them.
#[derive(Debug, Default)]
pub struct Horizons(RwLock<HashMap<ViewId, Looked>>);

/// What a look came to, and when it began.
#[derive(Debug, Clone, Copy)]
struct Looked {
    horizon: Option<i64>,
    at: Moment,
}

/// By a clock that never goes back, and by one that goes on while the machine sleeps (microseconds UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub Instant, pub i64);

impl Looked {
    fn is_believed(&self, Moment(ticks, wall): Moment) -> bool {
        let Moment(at, of_wall) = self.at;
        let most = i64::try_from(BELIEVED.as_micros()).unwrap_or(i64::MAX);
        ticks.saturating_duration_since(at) <= BELIEVED && (0..=most).contains(&wall.saturating_sub(of_wall))
    }
}

impl Horizons {
    /// The instant from which on a view has every event, if it lacks some: to be asked once its pieces are read.
    pub(super) async fn of(
        &self,
        store: &dyn OnlineStore,
        view: &ViewId,
        now: Moment,
    ) -> Result<Option<i64>, StoreError> {
        let looked = self.0.read().unwrap_or_else(PoisonError::into_inner).get(view).copied();
        if let Some(looked) = looked.filter(|looked| looked.is_believed(now)) {
            return Ok(looked.horizon);
        }
        let horizon = store.progress(&horizon_id(view)).await?.into_values().max();
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let looked = all.entry(view.clone()).or_insert(Looked { horizon, at: now });
        // It only rises. Of looks that cross, what one saw the other doesn't take back.
        *looked = Looked { horizon: looked.horizon.max(horizon), at: looked.at.max(now) };
        Ok(looked.horizon)
    }
}
