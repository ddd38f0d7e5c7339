//! Arrow rows out: each a JSON object with its columns in the order of the SELECT.
//!
//! Guarantees: a value keeps all of its digits. Integers are numbers (64 bits too: read them with a parser that keeps
//! them), doubles the shortest number that reads back as the same bits, NaN and infinities `"NaN"`, `"Infinity"`,
//! `"-Infinity"`, decimals text, timestamps RFC 3339 in UTC with microseconds (nanoseconds where there are any), dates
//! `YYYY-MM-DD`, bytes base64, lists arrays, structs objects, NULL `null`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use chrono::{DateTime, SecondsFormat};
use serde::ser::{Error, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::instant::Instant;

/// All rows of a batch.
pub struct Rows<'a>(pub &'a RecordBatch);

/// One row of a batch.
pub struct Row<'a>(pub &'a RecordBatch, pub usize);

struct Cell<'a>(&'a dyn Array, usize);

/// A list's items.
struct Items<'a>(&'a ArrayRef);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.num_rows()))?;
        for row in 0..self.0.num_rows() {
            rows.serialize_element(&Row(self.0, row))?;
        }
        rows.end()
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(Some(self.0.num_columns()))?;
        for (field, column) in self.0.schema_ref().fields().iter().zip(self.0.columns()) {
            row.serialize_entry(field.name(), &Cell(column, self.1))?;
        }
        row.end()
    }
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(self.0.len()))?;
        for item in 0..self.0.len() {
            items.serialize_element(&Cell(self.0, item))?;
        }
        items.end()
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use DataType::*;
        let Self(array, row) = *self;
        if array.is_null(row) {
            return serializer.serialize_unit();
        }
        match array.data_type() {
            Null => serializer.serialize_unit(),
            Boolean => serializer.serialize_bool(array.as_boolean().value(row)),
            Int8 => serializer.serialize_i8(array.as_primitive::<Int8Type>().value(row)),
            Int16 => serializer.serialize_i16(array.as_primitive::<Int16Type>().value(row)),
            Int32 => serializer.serialize_i32(array.as_primitive::<Int32Type>().value(row)),
            Int64 => serializer.serialize_i64(array.as_primitive::<Int64Type>().value(row)),
            UInt8 => serializer.serialize_u8(array.as_primitive::<UInt8Type>().value(row)),
            UInt16 => serializer.serialize_u16(array.as_primitive::<UInt16Type>().value(row)),
            UInt32 => serializer.serialize_u32(array.as_primitive::<UInt32Type>().value(row)),
            UInt64 => serializer.serialize_u64(array.as_primitive::<UInt64Type>().value(row)),
            Float16 => single(array.as_primitive::<Float16Type>().value(row).to_f32(), serializer),
            Float32 => single(array.as_primitive::<Float32Type>().value(row), serializer),
            Float64 => match array.as_primitive::<Float64Type>().value(row) {
                value if value.is_finite() => serializer.serialize_f64(value),
                value => serializer.serialize_str(not_finite(value)),
            },
            Utf8 => serializer.serialize_str(array.as_string::<i32>().value(row)),
            LargeUtf8 => serializer.serialize_str(array.as_string::<i64>().value(row)),
            Utf8View => serializer.serialize_str(array.as_string_view().value(row)),
            Binary => base64(array.as_binary::<i32>().value(row), serializer),
            LargeBinary => base64(array.as_binary::<i64>().value(row), serializer),
            BinaryView => base64(array.as_binary_view().value(row), serializer),
            FixedSizeBinary(_) => base64(array.as_fixed_size_binary().value(row), serializer),
            Timestamp(unit, _) => timestamp(array, row, *unit, serializer),
            List(_) => Items(&array.as_list::<i32>().value(row)).serialize(serializer),
            LargeList(_) => Items(&array.as_list::<i64>().value(row)).serialize(serializer),
            FixedSizeList(_, _) => Items(&array.as_fixed_size_list().value(row)).serialize(serializer),
            ListView(_) => Items(&array.as_list_view::<i32>().value(row)).serialize(serializer),
            LargeListView(_) => Items(&array.as_list_view::<i64>().value(row)).serialize(serializer),
            Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                match dictionary.normalized_keys().get(row) {
                    Some(key) => Cell(dictionary.values(), *key).serialize(serializer),
                    None => serializer.serialize_unit(),
                }
            }
            Struct(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                    object.serialize_entry(field.name(), &Cell(column, row))?;
                }
                object.end()
            }
            // Decimals, dates, times, intervals: Arrow's own text is exact.
            _ => {
                let options = FormatOptions::new();
                let formatter = ArrayFormatter::try_new(array, &options).map_err(S::Error::custom)?;
                serializer.collect_str(&formatter.value(row))
            }
        }
    }
}

fn single<S: Serializer>(value: f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f32(value)
    } else {
        serializer.serialize_str(not_finite(f64::from(value)))
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn timestamp<S: Serializer>(array: &dyn Array, row: usize, unit: TimeUnit, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).checked_mul(1_000_000),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000),
        TimeUnit::Microsecond => Some(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => {
            let nanos = array.as_primitive::<TimestampNanosecondType>().value(row);
            if nanos % 1_000 != 0 {
                let time = DateTime::from_timestamp_nanos(nanos);
                return serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Nanos, true));
            }
            Some(nanos / 1_000)
        }
    };
    match micros {
        Some(micros) => Instant(micros).serialize(serializer),
        None => Err(S::Error::custom("a timestamp outside the calendar")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::datatypes::{Field, Int32Type, Schema};
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_digits_and_columns_their_order() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("z", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("y", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("double", Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NAN]))),
            ("single", Arc::new(Float32Array::from(vec![0.1, f32::NEG_INFINITY]))),
            ("decimal", Arc::new(Decimal128Array::from(vec![-1250, 5]).with_precision_and_scale(10, 2).unwrap())),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![-1, 1_500_000]).with_timezone("UTC"))),
            ("nanos", Arc::new(TimestampNanosecondArray::from(vec![1, 1_000]))),
            ("date", Arc::new(Date32Array::from(vec![0, 20_000]))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![0, 1_500_000]))),
            ("bytes", Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice(), b""]))),
            ("list", Arc::new(list)),
            ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("a\"b"), None]))),
            ("view", Arc::new(StringViewArray::from(vec!["é", ""]))),
            ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let text = serde_json::to_string(&Rows(&batch)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"[{"z":9223372036854775807,"y":18446744073709551615,"double":0.30000000000000004,"single":0.1,"decimal":"-12.50","#,
                r#""at":"1969-12-31T23:59:59.999999Z","nanos":"1970-01-01T00:00:00.000000001Z","date":"1970-01-01","time":"00:00:00","#,
                r#""bytes":"AP8=","list":[1,null],"word":"a\"b","view":"é","flag":true},"#,
                r#"{"z":null,"y":0,"double":"NaN","single":"-Infinity","decimal":"0.05","at":"1970-01-01T00:00:01.500000Z","#,
                r#""nanos":"1970-01-01T00:00:00.000001Z","date":"2024-10-04","time":"00:00:01.500","bytes":"","list":null,"word":null,"#,
                r#""view":"","flag":false}]"#
            )
        );
    }

    #[test]
    fn structs_are_objects() {
        let fields = vec![Field::new("b", DataType::Int32, true), Field::new("a", DataType::Utf8, true)];
        let inner: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![7])), Arc::new(StringArray::from(vec!["x"]))];
        let array: ArrayRef = Arc::new(StructArray::new(fields.into(), inner, None));
        let schema = Arc::new(Schema::new(vec![Field::new("s", array.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(schema, vec![array]).unwrap();
        assert_eq!(json!(Row(&batch, 0)), json!({"s": {"b": 7, "a": "x"}}));
    }
}
