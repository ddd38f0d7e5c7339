//! A compacted file, read by offsets: its rows are in the order of their times.
//!
//! Guarantees: every row once, in offset order, with a stretch of rows unpacked at a time.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result};

use super::archive_files::offsets_of;
use crate::source::OFFSET;

/// Rows of a stretch: what a fill asks for at once at the most.
const STRETCH: usize = 131_072;

/// Where its rows are.
pub(super) struct Clustered {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    /// Ascending.
    offsets: Vec<i64>,
}

impl Clustered {
    pub(super) fn open(bytes: Bytes, metadata: ArrowReaderMetadata) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone());
        let only = ProjectionMask::columns(builder.parquet_schema(), [OFFSET]);
        let mut offsets = vec![];
        for rows in builder.with_projection(only).build()? {
            offsets.extend_from_slice(offsets_in(&rows?));
        }
        offsets.sort_unstable();
        Ok(Self { bytes, metadata, offsets })
    }

    /// The next rows at and after an offset; none at the end.
    pub(super) fn read(&self, from: i64) -> Option<Result<RecordBatch>> {
        let at = self.offsets.partition_point(|offset| *offset < from);
        let stretch = self.offsets.get(at..(at + STRETCH).min(self.offsets.len()))?;
        let (first, last) = (*stretch.first()?, *stretch.last()?);
        Some(self.between(first, last))
    }

    fn between(&self, first: i64, last: i64) -> Result<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone());
        let schema = builder.schema().clone();
        let groups = offsets_of(builder.metadata()).into_iter().enumerate();
        let reach = |held: Option<(i64, i64)>| held.is_none_or(|(least, most)| least <= last && first <= most);
        let groups = groups.filter(|(_, held)| reach(*held)).map(|(group, _)| group).collect();
        let mut parts = vec![];
        for rows in builder.with_row_groups(groups).build()? {
            let rows = rows?;
            let inside: BooleanArray = offsets_in(&rows).iter().map(|o| Some((first..=last).contains(o))).collect();
            parts.push(filter_record_batch(&rows, &inside)?);
        }
        in_order(&concat_batches(&schema, &parts)?).map_err(ParquetError::from)
    }
}

/// Rows by offset.
pub(super) fn in_order(rows: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let order = match rows.column_by_name(OFFSET) {
        Some(offsets) => sort_to_indices(offsets, None, None)?,
        None => return Err(ArrowError::SchemaError(format!("no column {OFFSET}"))),
    };
    take_record_batch(rows, &order)
}

/// The offsets of rows, as they lie.
pub(super) fn offsets_in(rows: &RecordBatch) -> &[i64] {
    rows.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>()).map_or(&[], |c| c.values())
}
