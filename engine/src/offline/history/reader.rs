//! A history by offsets, for views that fill from it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::physical_plan::metrics::Count;

use super::file::Rows;
use super::{History, ROW_BITS};
use crate::offline::OfflineError;

/// Reads events in the order of their offsets, on from where the last read ended.
pub struct HistoryReader {
    history: Arc<History>,
    open: Option<Open>,
}

/// Where it is.
struct Open {
    /// The offset of the next row.
    next: i64,
    rows: Rows,
    /// Rows that were unpacked and not asked for.
    ahead: Option<RecordBatch>,
}

impl fmt::Debug for HistoryReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryReader").field("history", &self.history).finish_non_exhaustive()
    }
}

impl HistoryReader {
    pub fn new(history: Arc<History>) -> Self {
        Self { history, open: None }
    }

    pub fn end(&self) -> i64 {
        self.history.end()
    }

    /// Events from an offset on, `most` of them at most, and where the next ones begin; none at the end.
    pub async fn read(&mut self, from: i64, most: usize) -> Result<Option<(RecordBatch, i64)>, OfflineError> {
        let mut from = from.max(0);
        while from < self.end() {
            let (file, row) = (usize::try_from(from >> ROW_BITS).unwrap_or(0), from & ((1 << ROW_BITS) - 1));
            let mut open = match self.open.take().filter(|open| open.next == from) {
                Some(open) => open,
                None => match self.history.file(file, Count::new()).await? {
                    Some(file) => {
                        let (all, row) =
                            ((0..file.groups().len()).collect(), usize::try_from(row).unwrap_or(usize::MAX));
                        let rows = file.rows(all, row, Arc::clone(&self.history.schema))?;
                        Open { next: from, rows, ahead: None }
                    }
                    None => return Ok(None),
                },
            };
            let rows = match open.ahead.take() {
                Some(rows) => Some(rows),
                None => open.rows.next().await?,
            };
            let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) else {
                from = (from | ((1 << ROW_BITS) - 1)) + 1;
                continue;
            };
            let n = rows.num_rows().min(most.max(1));
            open.ahead = (n < rows.num_rows()).then(|| rows.slice(n, rows.num_rows() - n));
            open.next = from + n as i64;
            let next = open.next;
            self.open = Some(open);
            return Ok(Some((rows.slice(0, n), next)));
        }
        Ok(None)
    }
}
