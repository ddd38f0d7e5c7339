//! A file's rows in the source's columns, and the rows that don't fit.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;

use super::super::nulls::nulls;

/// A stretch of consecutive rows of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The number of the first row in the file.
    pub first: u32,
    /// How many rows it spans, those that don't fit included.
    pub rows: u32,
    /// The rows that fit, in the source's columns.
    pub batch: RecordBatch,
    /// Their numbers, ascending.
    pub numbers: Vec<u32>,
    /// The rows that don't fit, ascending by number.
    pub rejects: Vec<RowReject>,
}

#[derive(Debug)]
pub(super) struct RowReject {
    pub number: u32,
    pub payload: Bytes,
    pub reason: String,
}

impl Chunk {
    /// Cuts off the first `rows` rows, at most; the rest stays.
    pub(super) fn split_off_front(&mut self, rows: u32) -> Chunk {
        let rows = rows.min(self.rows);
        let end = self.first + rows;
        let good = self.numbers.partition_point(|number| *number < end);
        let bad = self.rejects.partition_point(|reject| reject.number < end);
        let rest_numbers = self.numbers.split_off(good);
        let rest_rejects = self.rejects.split_off(bad);
        let front = Chunk {
            first: self.first,
            rows,
            batch: self.batch.slice(0, good),
            numbers: std::mem::replace(&mut self.numbers, rest_numbers),
            rejects: std::mem::replace(&mut self.rejects, rest_rejects),
        };
        self.batch = self.batch.slice(good, self.batch.num_rows() - good);
        self.first = end;
        self.rows -= rows;
        front
    }
}

/// Rows as a file's reader gave them, with their numbers.
pub(super) struct RawRows {
    pub first: u32,
    pub rows: u32,
    /// Any columns, in any order and types.
    pub batch: RecordBatch,
    pub numbers: Vec<u32>,
    /// Rows that the reader could not make sense of.
    pub rejects: Vec<RowReject>,
}

/// Casts rows to the source's columns. A value that does not fit makes its row a reject; a column that the
/// file lacks is NULL. `payload` gives the bytes of a row of the batch.
pub(super) fn convert(
    raw: RawRows,
    columns: &SchemaRef,
    payload: impl Fn(&RecordBatch, usize) -> Bytes,
) -> Result<Chunk, String> {
    let RawRows { first, rows, batch, numbers, mut rejects } = raw;
    let lenient = CastOptions { safe: true, ..Default::default() };
    let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
    let mut cast_columns: Vec<ArrayRef> = Vec::with_capacity(columns.fields().len());
    for field in columns.fields() {
        let wanted = field.data_type();
        let Some(given) = batch.column_by_name(field.name()) else {
            cast_columns.push(nulls(wanted, batch.num_rows()));
            continue;
        };
        if matches!(wanted, DataType::Timestamp(_, _)) && given.data_type().is_numeric() {
            return Err(format!(
                "\"{}\" is {}, expected a timestamp; hint: a number does not say its unit: write it as a timestamp \
                 or as text such as 2026-01-31T13:45:00Z",
                field.name(),
                given.data_type()
            ));
        }
        let cast = cast_with_options(given, wanted, &lenient)
            .map_err(|e| format!("\"{}\" is {}, expected {wanted}: {e}", field.name(), given.data_type()))?;
        // Logical: a column of type Null and a dictionary with a NULL among its values have no NULLs of their own.
        let (nulls, given_nulls) = (cast.logical_nulls(), given.logical_nulls());
        let count = |nulls: &Option<NullBuffer>| nulls.as_ref().map_or(0, NullBuffer::null_count);
        if count(&nulls) > count(&given_nulls) {
            let lost = |row| is_null(&nulls, row) && !is_null(&given_nulls, row);
            for row in (0..batch.num_rows()).filter(|row| lost(*row)) {
                reasons.entry(row).or_insert_with(|| {
                    let value = array_value_to_string(given, row).unwrap_or_default();
                    format!("\"{}\" is \"{value}\", expected {}", field.name(), words(wanted))
                });
            }
        }
        cast_columns.push(cast);
    }
    for (field, column) in columns.fields().iter().zip(&cast_columns) {
        if field.is_nullable() || column.null_count() == 0 {
            continue;
        }
        for row in (0..batch.num_rows()).filter(|row| column.is_null(*row)) {
            let reason = || format!("\"{}\" is NULL, expected {}", field.name(), words(field.data_type()));
            reasons.entry(row).or_insert_with(reason);
        }
    }
    let keep = |row: usize| !reasons.contains_key(&row);
    rejects.extend(reasons.iter().map(|(row, reason)| RowReject {
        number: numbers.get(*row).copied().unwrap_or(first),
        payload: payload(&batch, *row),
        reason: reason.clone(),
    }));
    rejects.sort_by_key(|reject| reject.number);
    // Rows that are NULL where they must not be are still among these.
    let nullable = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(nullable.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(schema, cast_columns, &options).map_err(|e| e.to_string())?;
    if reasons.is_empty() {
        return Ok(Chunk { first, rows, batch, numbers, rejects });
    }
    let kept: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(row))).collect();
    let batch = filter_record_batch(&batch, &kept).map_err(|e| e.to_string())?;
    let numbers = numbers.into_iter().enumerate().filter(|(row, _)| keep(*row)).map(|(_, number)| number).collect();
    Ok(Chunk { first, rows, batch, numbers, rejects })
}

fn is_null(nulls: &Option<NullBuffer>, row: usize) -> bool {
    nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
}

/// What a value of a type looks like.
pub(super) fn words(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, _) => "a timestamp, such as 2026-01-31T13:45:00Z".into(),
        DataType::Float32 | DataType::Float64 => "a number".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => "a whole number".into(),
        DataType::Boolean => "true or false".into(),
        DataType::Date32 | DataType::Date64 => "a date, such as 2026-01-31".into(),
        other => other.to_string(),
    }
}
