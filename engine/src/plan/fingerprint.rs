//! The fingerprint of a feature view: a name for its compiled form.
//!
//! It covers what decides the view's state and values: the analysed plan (with every type), the source's timestamp and
//! event id, where a source's files are in the project and what decides which of their rows are events, the files of its history and
//! what is in them, the tile and the lateness, and the content of the dimension tables that the row stage joins, with the age up to which rows of a table
//! with history hold. Descriptions, comments and layout don't
//! change it, nor does moving the project. State is kept under it, so a changed view never reads another's state.

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use sha2::{Digest, Sha256};

use super::view::FeatureView;

/// Changes when the meaning of a compiled view, or how its state is stored, changes in a way that its plan doesn't show.
const GENERATION: &str = "tidemark view 3";

/// Sixteen hexadecimal digits.
pub fn fingerprint(view: &FeatureView) -> Result<String> {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(GENERATION);
    part(&view.source.name);
    part(&view.source.timestamp);
    part(view.source.event_id.as_deref().unwrap_or_default());
    if let Some(of) = &view.source.of {
        part(of);
        // A row is an event if every column of it fits, also those that the view doesn't read.
        for field in view.source.schema.fields() {
            part(&format!("{} {} {}", field.name(), field.data_type(), field.is_nullable()));
        }
    }
    match (&view.source.options.history, &view.source.history_version) {
        (None, _) => {}
        (Some(_), Some(version)) => part(&format!("history {version}")),
        (Some(_), None) => return Ok(String::new()),
    }
    part(&format!("{:?} {} {}", view.options.tile, view.options.lateness, view.source.options.max_future));
    part(&view.plans.whole.display_indent_schema().to_string());
    for join in view.row_stage.table_joins() {
        if let Some(as_of) = &join.as_of {
            part(&format!("max_age {:?}", as_of.max_age));
        }
        match join.content() {
            Some(rows) => part(&content(rows)?),
            None => return Ok(String::new()),
        }
    }
    Ok(hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect())
}

/// A hash of rows that doesn't depend on their order.
fn content(rows: &RecordBatch) -> Result<String> {
    let fields = rows.columns().iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encoded = converter.convert_columns(rows.columns())?;
    let mut hashes: Vec<[u8; 32]> = encoded.iter().map(|row| Sha256::digest(row.data()).into()).collect();
    hashes.sort_unstable();
    let mut hash = Sha256::new();
    hashes.iter().for_each(|h| hash.update(h));
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
