//! Decoded columns in the engine's own types.
//!
//! Guarantees: every instant is `Timestamp(Microsecond, "UTC")`, every text `Utf8`; a value that its type
//! can't mean is an error, never another value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, TimeUnit};
use arrow::datatypes::{Time32MillisecondType, Time64MicrosecondType};

use super::contract::Contract;

/// The type of a decoded column once it is normalised: what the rest of the engine sees.
pub(crate) fn normal_type(decoded: &DataType) -> DataType {
    let normal_field = |f: &Field| Arc::new(Field::new(f.name(), normal_type(f.data_type()), f.is_nullable()));
    match decoded {
        DataType::Timestamp(_, _) => utc_micros(),
        DataType::Dictionary(_, values) => normal_type(values),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(normal_field(item)),
        DataType::Struct(fields) => DataType::Struct(normal_fields(fields)),
        DataType::Map(entries, sorted) => DataType::Map(normal_field(entries), *sorted),
        other => other.clone(),
    }
}

pub(super) fn normal_fields(fields: &Fields) -> Fields {
    fields.iter().map(|f| Field::new(f.name(), normal_type(f.data_type()), f.is_nullable())).collect()
}

/// The one type of instants inside the engine.
pub(crate) fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The decoder's columns in the contract's types; refuses values that those types can't hold.
pub(super) fn normalise(batch: &RecordBatch, contract: &Contract) -> Result<Vec<ArrayRef>, String> {
    let strict = CastOptions { safe: false, ..Default::default() };
    let fields = contract.columns().fields();
    let columns: Vec<ArrayRef> = fields
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| {
            let in_field = |e: &dyn std::fmt::Display| format!("\"{}\": {e}", field.name());
            check_values(column).map_err(|e| in_field(&e))?;
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast_with_options(column, field.data_type(), &strict).map_err(|e| in_field(&e))
        })
        .collect::<Result<_, String>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(contract.columns()), columns.clone(), &options)
        .map_err(|e| e.to_string())?;
    Ok(columns)
}

/// Refuses what Avro can write but the type can't mean: a decimal of too many digits, a time past midnight.
fn check_values(array: &ArrayRef) -> Result<(), String> {
    match array.data_type() {
        DataType::Decimal128(precision, _) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision).map_err(|e| e.to_string())
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            let bad =
                array.as_primitive::<Time32MillisecondType>().iter().flatten().find(|t| !(0..86_400_000).contains(t));
            bad.map_or(Ok(()), |t| Err(format!("{t} ms is no time of day")))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let times = array.as_primitive::<Time64MicrosecondType>();
            let bad = times.iter().flatten().find(|t| !(0..86_400_000_000).contains(t));
            bad.map_or(Ok(()), |t| Err(format!("{t} µs is no time of day")))
        }
        DataType::List(_) => check_values(array.as_list::<i32>().values()),
        DataType::Map(_, _) => check_values(array.as_map().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().try_for_each(check_values),
        _ => Ok(()),
    }
}
