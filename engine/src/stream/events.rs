//! A batch's events: those from an offset on, and one as a dead letter.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::common::internal_datafusion_err;

use super::error::StreamError;
use crate::plan::rows::FailedEvent;
use crate::source::{INGESTED_AT, OFFSET, Reject};

/// Adds an event that a view could not evaluate: one letter an event, with every view's reason. The event itself was
/// taken, so its letter carries it as JSON, not as the bytes that came.
pub(super) fn dead_letter(
    letters: &mut BTreeMap<i64, Reject>,
    view: &str,
    failed: &FailedEvent,
    events: &RecordBatch,
) -> Result<(), StreamError> {
    let reason = format!("view {view}: {}", failed.reason);
    if let Some(letter) = letters.get_mut(&failed.offset) {
        letter.reason = format!("{}; {reason}", letter.reason);
        return Ok(());
    }
    let wrong = |source: arrow::error::ArrowError| StreamError::View { view: view.to_owned(), source: source.into() };
    let offsets = column(events, OFFSET)?.as_primitive::<Int64Type>();
    let times = column(events, INGESTED_AT)?.as_primitive::<TimestampMicrosecondType>();
    let row = offsets.values().partition_point(|o| *o < failed.offset);
    let mut json = arrow::json::LineDelimitedWriter::new(Vec::new());
    json.write(&events.slice(row, 1)).map_err(wrong)?;
    json.finish().map_err(wrong)?;
    let letter =
        Reject { offset: failed.offset, ingested_at: times.value(row), payload: json.into_inner().into(), reason };
    letters.insert(failed.offset, letter);
    Ok(())
}

/// The events at or after an offset.
pub(super) fn since(events: &RecordBatch, offset: i64, first: i64) -> Result<RecordBatch, StreamError> {
    if offset <= first {
        return Ok(events.clone());
    }
    let offsets = column(events, OFFSET)?.as_primitive::<Int64Type>();
    let start = offsets.values().partition_point(|o| *o < offset);
    Ok(events.slice(start, events.num_rows() - start))
}

fn column<'a>(events: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, StreamError> {
    events.column_by_name(name).ok_or_else(|| StreamError::View {
        view: "-".to_owned(),
        source: internal_datafusion_err!("a source batch without {name}"),
    })
}
