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
    /// Of the files that were opened.
    known: Known,
}

/// How many rows some files have, and what was thought of them.
#[derive(Default)]
struct Known {
    rows: i64,
    thought: i64,
}

/// Where it is.
struct Open {
    /// The offset of the next row.
    next: i64,
    /// That after the file's last row.
    end: i64,
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
        Self { history, open: None, known: Known::default() }
    }

    pub fn end(&self) -> i64 {
        self.history.end()
    }

    /// About how many events lie between two offsets: as many as are left of the file that is read there, and of the files behind it as many as
    /// those that were opened make likely.
    pub fn between(&self, from: i64, to: i64) -> i64 {
        let open = self.open.as_ref().filter(|open| open.next == from && open.end <= to);
        let (here, from) = open.map_or((0, from), |open| (open.end - from, after_file(from)));
        let thought = self.history.between(from, to);
        let Known { rows, thought: known } = self.known;
        let likely = if known > 0 { thought as f64 * rows as f64 / known as f64 } else { thought as f64 };
        here.saturating_add(likely as i64)
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
                        let count: i64 = file.groups().iter().map(|group| group.num_rows()).sum();
                        self.known.rows += count;
                        self.known.thought += self.history.between(from - row, after_file(from));
                        let end = from - row + count;
                        let (all, row) =
                            ((0..file.groups().len()).collect(), usize::try_from(row).unwrap_or(usize::MAX));
                        let rows = file.rows(all, row, Arc::clone(&self.history.schema))?;
                        Open { next: from, end, rows, ahead: None }
                    }
                    None => return Ok(None),
                },
            };
            let rows = match open.ahead.take() {
                Some(rows) => Some(rows),
                None => open.rows.next().await?,
            };
            let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) else {
                from = after_file(from);
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

/// The offset of the next file's first row.
fn after_file(offset: i64) -> i64 {
    (offset | ((1 << ROW_BITS) - 1)) + 1
}
