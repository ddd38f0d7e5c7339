//! How columns are encoded in Parquet files.
//!
//! A dictionary is worth its look-ups where values repeat: texts, flags, counts. Doubles hardly do; of whole numbers and instants it is looked
//! at in the first rows, and those that differ are written as differences, which are short.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::schema::types::ColumnPath;

/// Rows that are looked at.
const SAMPLE: usize = 4096;

/// How a file is written that begins with these rows.
pub(crate) fn properties(schema: &SchemaRef, rows: &[RecordBatch]) -> WriterProperties {
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    for (place, field) in schema.fields().iter().enumerate() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            of if of.is_floating() => properties.set_column_dictionary_enabled(column, false),
            of if (of.is_integer() || matches!(of, DataType::Timestamp(..))) && differ(rows, place) => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            _ => properties,
        };
    }
    properties.build()
}

/// Whether hardly a value of a column is met twice.
fn differ(rows: &[RecordBatch], column: usize) -> bool {
    let mut values: Vec<i64> = vec![];
    let mut left = SAMPLE;
    for rows in rows {
        let some = rows.column(column).slice(0, rows.num_rows().min(left));
        left -= some.len();
        let Ok(numbers) = cast(&some, &DataType::Int64) else { return false };
        values.extend(numbers.as_primitive::<Int64Type>().iter().flatten());
    }
    let met = values.len();
    values.sort_unstable();
    values.dedup();
    met > 0 && values.len() * 100 >= met * 97
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn what_differs_has_no_dictionary() {
        let n = 3_000;
        let numbers = |of: &dyn Fn(i64) -> Option<i64>| Arc::new((0..n).map(of).collect::<Int64Array>()) as ArrayRef;
        let columns: [(&str, ArrayRef, bool); 7] = [
            ("id", numbers(&|i| Some(i64::MAX - i * 7)), true),
            ("count", numbers(&|i| Some(i % 2_000)), false),
            ("rare", numbers(&|i| (i % 10 == 0).then_some(i)), true),
            ("null", numbers(&|_| None), false),
            ("small", Arc::new((0..n as i32).collect::<Int32Array>()), true),
            ("time", Arc::new(TimestampMicrosecondArray::from_iter_values(0..n).with_timezone("UTC")), true),
            ("text", Arc::new((0..n).map(|i| Some(i.to_string())).collect::<StringArray>()), false),
        ];
        let whole =
            RecordBatch::try_from_iter(columns.iter().map(|(name, column, _)| (*name, column.clone()))).unwrap();
        let rows = [whole.slice(0, 1_000), whole.slice(1_000, 2_000)];
        let properties = properties(&whole.schema(), &rows);
        for (name, _, differs) in columns {
            let column = ColumnPath::from(name);
            assert_eq!(properties.dictionary_enabled(&column), !differs, "{name}");
            assert_eq!(properties.encoding(&column), differs.then_some(Encoding::DELTA_BINARY_PACKED), "{name}");
        }
    }
}
