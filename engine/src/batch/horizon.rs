//! Rows of a spine that need events which are gone: refused by name.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{Result, exec_err};

use super::sides::row_number;
use crate::plan::FeatureView;
use crate::source::instant;

/// What is held for some views: every event from the horizon on.
pub(super) struct Held {
    pub views: Vec<Arc<FeatureView>>,
    pub horizon: i64,
}

impl Held {
    /// Looks at rows of the spine, before which so many were `read`: at the instants of those that are `live`, since one without a
    /// key needs no event.
    pub fn check(&self, rows: &RecordBatch, (instants, live): (&[i64], &[bool]), read: usize) -> Result<()> {
        for (row, (at, _)) in instants.iter().zip(live).enumerate().filter(|(_, (_, live))| **live) {
            if let Some(view) = self.views.iter().find(|view| view.needs_before(self.horizon, *at)) {
                let number = row_number(rows, row).unwrap_or(read + row) + 1;
                let (name, at, beyond) = (&view.name, instant(*at), view.beyond(self.horizon));
                return exec_err!("row {number} of the spine, as of {at}, view {name}: {beyond}");
            }
        }
        Ok(())
    }
}
