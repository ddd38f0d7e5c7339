//! Rows of a spine that need events which are gone: refused by name.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::{Result, exec_err};
use datafusion::physical_expr::PhysicalExpr;

use super::sides::row_number;
use crate::plan::{FeatureView, timestamp_type};
use crate::source::instant;

/// What is held for some views: every event from the horizon on.
pub(super) struct Held<'a> {
    pub views: &'a [Arc<FeatureView>],
    pub keys: &'a [Arc<dyn PhysicalExpr>],
    pub instant: &'a Arc<dyn PhysicalExpr>,
    pub horizon: i64,
}

impl Held<'_> {
    /// Looks at rows of the spine, before which so many were `read`. A row without a key needs no event.
    pub fn check(&self, rows: &RecordBatch, read: usize) -> Result<()> {
        let n = rows.num_rows();
        let instants = cast(&self.instant.evaluate(rows)?.into_array(n)?, &timestamp_type())?;
        let instants = instants.as_primitive::<TimestampMicrosecondType>();
        let mut live = vec![true; n];
        for key in self.keys {
            let key = key.evaluate(rows)?.into_array(n)?;
            live.iter_mut().enumerate().for_each(|(row, live)| *live &= key.is_valid(row));
        }
        for (row, at) in instants.values().iter().enumerate().filter(|(row, _)| live[*row]) {
            if let Some(view) = self.views.iter().find(|view| view.needs_before(self.horizon, *at)) {
                let number = row_number(rows, row).unwrap_or(read + row) + 1;
                let (name, at, beyond) = (&view.name, instant(*at), view.beyond(self.horizon));
                return exec_err!("row {number} of the spine, as of {at}, view {name}: {beyond}");
            }
        }
        Ok(())
    }
}
