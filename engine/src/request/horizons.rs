//! Which views lack old events: those that filled from an archive when it no longer had them.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::online::ViewId;

/// By view, the instant from which on it has absorbed every event: raised by whoever looks after the views, asked by whoever reads them.
#[derive(Debug, Default)]
pub struct Horizons(RwLock<BTreeMap<ViewId, i64>>);

impl Horizons {
    pub fn of(&self, view: &ViewId) -> Option<i64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(view).copied()
    }

    pub fn raise(&self, view: &ViewId, horizon: i64) {
        let mut horizons = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = horizons.entry(view.clone()).or_insert(horizon);
        *known = (*known).max(horizon);
    }
}
