//! JSON rows in: objects to Arrow columns of a known schema, strictly.
//!
//! Guarantees: a value is taken exactly as its type says or refused with its path (`rows[3].amount`); no value is
//! coerced. Every field must be there: NULL is said as `null`, and an unknown field is an error, so that a
//! misspelt name never reads as NULL. All errors of a request come at once (the first twenty of them).
//!
//! | SQL | JSON |
//! | --- | --- |
//! | integers | a number without a fraction, in the type's range |
//! | `DOUBLE`, `REAL` | a number, or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `DECIMAL` | text in plain digits, `"12.50"`, or a number of at most 15 digits |
//! | `TIMESTAMP` | RFC 3339 text with a zone, or integer microseconds since 1970 |
//! | `DATE`, `TIME` | `"2026-01-31"`, `"13:45:00.5"` |
//! | `BYTEA` | base64 text |
//! | lists, structs | arrays, objects |

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, ListArray, NullArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use base64::Engine;
use chrono::{NaiveDate, NaiveTime, Timelike};
use serde_json::Value as Json;
use tidemark_engine::sql::did_you_mean;

use crate::instant;
use crate::problem::FieldErrors;
use crate::types::sql_type;

/// What a refused value may be told beside what was expected.
type Parsed<T> = Result<T, Option<String>>;
/// The path of the n-th value.
type Path<'a> = &'a dyn Fn(usize) -> String;

/// Objects as a batch. `path` is what the request calls the n-th.
pub fn rows(schema: &Schema, rows: &[Json], path: &dyn Fn(usize) -> String) -> Result<RecordBatch, FieldErrors> {
    let mut errors = FieldErrors::default();
    let values: Vec<&Json> = rows.iter().collect();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.is_null()) {
        errors.push(path(i), format!("expected an object with {}, found {}", names.join(", "), found(row)), None);
    }
    let columns = members(schema.fields(), &values, path, &mut errors);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::new(schema.clone()), columns, &options);
    let batch = batch.map_err(|e| errors.push(path(0), e.to_string(), None)).ok();
    errors.or(()).map(|()| batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::new(schema.clone()))))
}

/// A value as it is shown in a message: short.
pub fn found(json: &Json) -> String {
    const SHOWN: usize = 60;
    let text = match json {
        Json::Array(items) => return format!("an array of {}", items.len()),
        Json::Object(_) => return "an object".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// The members of objects, a column for each field. A value that is null gives NULLs.
fn members(fields: &Fields, values: &[&Json], path: Path<'_>, errors: &mut FieldErrors) -> Vec<ArrayRef> {
    const NULL: Json = Json::Null;
    let names = || fields.iter().map(|f| f.name().as_str());
    for (i, value) in values.iter().enumerate() {
        match value {
            Json::Object(object) => {
                for name in object.keys().filter(|name| !names().any(|known| known == *name)) {
                    let expected = names().collect::<Vec<_>>().join(", ");
                    errors.push(
                        within(path(i), name),
                        format!("unknown field; expected {expected}"),
                        did_you_mean(name, names()),
                    );
                }
                for field in fields.iter().filter(|f| !object.contains_key(f.name())) {
                    let message = format!("missing; expected {}", sql_type(field.data_type()));
                    errors.push(within(path(i), field.name()), message, Some("NULL is said as null".to_owned()));
                }
            }
            Json::Null => {}
            other => errors.push(
                path(i),
                format!("expected an object with {}, found {}", names().collect::<Vec<_>>().join(", "), found(other)),
                None,
            ),
        }
    }
    fields
        .iter()
        .map(|field| {
            let column: Vec<&Json> = values.iter().map(|v| v.get(field.name()).unwrap_or(&NULL)).collect();
            array(field.data_type(), &column, &|i| within(path(i), field.name()), errors)
        })
        .collect()
}

/// The path of a member of an object.
fn within(path: String, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Values of one type as an array. What is refused becomes NULL, and an error.
fn array(data_type: &DataType, values: &[&Json], path: Path<'_>, errors: &mut FieldErrors) -> ArrayRef {
    use DataType::*;
    let mut read = Reading { expected: sql_type(data_type), values, path, errors };
    let plain: ArrayRef = match data_type {
        Null => {
            read.each(|_| -> Parsed<()> { Err(None) });
            Arc::new(NullArray::new(values.len()))
        }
        Boolean => Arc::new(BooleanArray::from(read.each(|v| v.as_bool().ok_or(None)))),
        Int8 | Int16 | Int32 | Int64 => {
            let range = match data_type {
                Int8 => i64::from(i8::MIN)..=i64::from(i8::MAX),
                Int16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
                Int32 => i64::from(i32::MIN)..=i64::from(i32::MAX),
                _ => i64::MIN..=i64::MAX,
            };
            Arc::new(Int64Array::from(read.each(|v| integer(v, v.as_i64(), |n| range.contains(n)))))
        }
        UInt8 | UInt16 | UInt32 | UInt64 => {
            let max = match data_type {
                UInt8 => u64::from(u8::MAX),
                UInt16 => u64::from(u16::MAX),
                UInt32 => u64::from(u32::MAX),
                _ => u64::MAX,
            };
            Arc::new(UInt64Array::from(read.each(|v| integer(v, v.as_u64(), |n| *n <= max))))
        }
        Float16 | Float32 => Arc::new(Float64Array::from(read.each(|v| match double(v)? {
            wide if wide.is_finite() && (wide as f32).is_infinite() => Err(Some("it has 32 bits".to_owned())),
            wide => Ok(wide),
        }))),
        Float64 => Arc::new(Float64Array::from(read.each(double))),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => {
            let texts = read.each(|v| decimal(v, *p, *s));
            Arc::new(StringArray::from(texts))
        }
        Utf8 | LargeUtf8 | Utf8View => Arc::new(StringArray::from(read.each(|v| v.as_str().ok_or(None)))),
        Binary | LargeBinary | BinaryView => Arc::new(BinaryArray::from_iter(read.each(|v| bytes(v, None)))),
        FixedSizeBinary(n) => {
            let length = usize::try_from(*n).ok();
            Arc::new(BinaryArray::from_iter(read.each(|v| bytes(v, length))))
        }
        Date32 | Date64 => Arc::new(Date32Array::from(read.each(date))),
        Time32(_) | Time64(_) => Arc::new(Time64MicrosecondArray::from(read.each(time))),
        Timestamp(unit, zone) => {
            let micros = TimestampMicrosecondArray::from(read.each(|v| timestamp(v, *unit)));
            Arc::new(micros.with_timezone_opt(zone.clone()))
        }
        Dictionary(_, inner) => array(inner, values, path, errors),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => list(item, None, values, path, errors),
        FixedSizeList(item, n) => list(item, usize::try_from(*n).ok(), values, path, errors),
        Struct(fields) => {
            let nulls: NullBuffer = values.iter().map(|v| !v.is_null()).collect();
            let columns = members(fields, values, path, errors);
            let array = StructArray::try_new_with_length(fields.clone(), columns, Some(nulls), values.len());
            return checked(array.map(|a| Arc::new(a) as ArrayRef), data_type, values.len(), path, errors);
        }
        _ => {
            read.each(|_| -> Parsed<()> { Err(Some("no JSON value can be of this type".to_owned())) });
            Arc::new(NullArray::new(values.len()))
        }
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    checked(cast_with_options(&plain, data_type, &strict), data_type, values.len(), path, errors)
}

/// Lists: all their items are read as one array, each with its path.
fn list(
    item: &Arc<Field>,
    length: Option<usize>,
    values: &[&Json],
    path: Path<'_>,
    errors: &mut FieldErrors,
) -> ArrayRef {
    let mut items: Vec<&Json> = vec![];
    let mut owners: Vec<(usize, usize)> = vec![];
    let mut lengths: Vec<usize> = vec![];
    let mut valid: Vec<bool> = vec![];
    for (i, value) in values.iter().enumerate() {
        let before = items.len();
        match value {
            Json::Array(array) if length.is_none_or(|n| n == array.len()) => {
                owners.extend((0..array.len()).map(|j| (i, j)));
                items.extend(array);
            }
            Json::Null => {}
            other => {
                let expected = match length {
                    Some(n) => format!("an array of {n} {}", sql_type(item.data_type())),
                    None => format!("an array of {}", sql_type(item.data_type())),
                };
                errors.push(path(i), format!("expected {expected}, found {}", found(other)), None);
            }
        }
        lengths.push(items.len() - before);
        valid.push(value.is_array());
    }
    let item_path = |k: usize| match owners.get(k) {
        Some((i, j)) => format!("{}[{j}]", path(*i)),
        None => path(0),
    };
    let items = array(item.data_type(), &items, &item_path, errors);
    let field = Arc::new(item.as_ref().clone().with_nullable(true));
    let array = ListArray::try_new(field.clone(), OffsetBuffer::from_lengths(lengths), items, Some(valid.into()));
    checked(array.map(|a| Arc::new(a) as ArrayRef), &DataType::List(field), values.len(), path, errors)
}

/// An array, or the error that Arrow had with it.
fn checked(
    array: Result<ArrayRef, arrow::error::ArrowError>,
    data_type: &DataType,
    rows: usize,
    path: Path<'_>,
    errors: &mut FieldErrors,
) -> ArrayRef {
    array.unwrap_or_else(|error| {
        errors.push(path(0), error.to_string(), None);
        arrow::array::new_null_array(data_type, rows)
    })
}

/// The values of a column on their way in.
struct Reading<'a> {
    expected: String,
    values: &'a [&'a Json],
    path: Path<'a>,
    errors: &'a mut FieldErrors,
}

impl<'a> Reading<'a> {
    fn each<T>(&mut self, parse: impl Fn(&'a Json) -> Parsed<T>) -> Vec<Option<T>> {
        let mut parsed = Vec::with_capacity(self.values.len());
        for (i, value) in self.values.iter().enumerate() {
            parsed.push(match value {
                Json::Null => None,
                value => match parse(value) {
                    Ok(value) => Some(value),
                    Err(hint) => {
                        self.errors.push(
                            (self.path)(i),
                            format!("expected {}, found {}", self.expected, found(value)),
                            hint,
                        );
                        None
                    }
                },
            });
        }
        parsed
    }
}

fn integer<T>(json: &Json, read: Option<T>, fits: impl Fn(&T) -> bool) -> Parsed<T> {
    match read {
        Some(n) if fits(&n) => Ok(n),
        Some(_) => Err(Some("it is out of range".to_owned())),
        None if json.as_f64().is_some_and(|n| n.fract() != 0.0) => Err(Some("it has a fraction".to_owned())),
        None if json.is_f64() && json.as_f64().is_some_and(|n| n.abs() < 1e15) => {
            Err(Some("write it without a point".to_owned()))
        }
        None if json.is_number() => Err(Some("it is out of range".to_owned())),
        None => Err(unquote(json)),
    }
}

fn double(json: &Json) -> Parsed<f64> {
    match json {
        Json::Number(number) => number.as_f64().ok_or(None),
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(unquote(json)),
        },
        _ => Err(None),
    }
}

fn unquote(json: &Json) -> Option<String> {
    json.as_str().and_then(|text| text.parse::<f64>().ok()).map(|_| "remove the quotes".to_owned())
}

/// The decimal's text with exactly `scale` digits, which Arrow then reads without rounding.
fn decimal(json: &Json, precision: u8, scale: i8) -> Parsed<String> {
    let text = match json {
        Json::String(text) => text.clone(),
        Json::Number(number) => {
            let text = number.to_string();
            let exact = number.is_i64() || number.is_u64() || text.bytes().filter(u8::is_ascii_digit).count() <= 15;
            if !exact {
                return Err(Some(format!(
                    "a JSON number of so many digits is not exact: write it as text, \"{text}\""
                )));
            }
            text
        }
        _ => return Err(None),
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return Err(Some("write it in plain digits, such as \"12.50\"".to_owned()));
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let places = usize::try_from(scale).unwrap_or(0);
    if fraction.len() > places {
        return Err(Some(format!("it has {} digits after the point", fraction.len())));
    }
    if whole.len() + places > usize::from(precision) {
        return Err(Some(format!("it has {} digits before the point", whole.len())));
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    Ok(format!("{sign}{}{whole}.{fraction:0<places$}", if whole.is_empty() { "0" } else { "" }))
}

fn bytes(json: &Json, length: Option<usize>) -> Parsed<Vec<u8>> {
    let text = json.as_str().ok_or(None)?;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| Some(format!("it is not base64: {e}")))?;
    match length {
        Some(length) if length != bytes.len() => Err(Some(format!("it has {} bytes, not {length}", bytes.len()))),
        _ => Ok(bytes),
    }
}

fn date(json: &Json) -> Parsed<i32> {
    let hint = || Some("write it as \"2026-01-31\"".to_owned());
    let date = json.as_str().and_then(|text| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).ok_or_else(hint)?;
    i32::try_from((date - NaiveDate::default()).num_days()).map_err(|_| hint())
}

fn time(json: &Json) -> Parsed<i64> {
    let time = json.as_str().and_then(|text| text.parse::<NaiveTime>().ok());
    let time = time.ok_or_else(|| Some("write it as \"13:45:00\"".to_owned()))?;
    Ok(i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond()) / 1_000)
}

/// Microseconds, of which the column's unit can hold every digit.
fn timestamp(json: &Json, unit: TimeUnit) -> Parsed<i64> {
    let expected = || "RFC 3339 text, such as \"2026-01-31T13:45:00Z\", or integer microseconds since 1970".to_owned();
    let micros = instant::parse(json).map_err(|hint| hint.or_else(|| Some(expected())))?;
    let fits = match unit {
        TimeUnit::Second => micros % 1_000_000 == 0,
        TimeUnit::Millisecond => micros % 1_000 == 0,
        TimeUnit::Microsecond => true,
        TimeUnit::Nanosecond => micros.checked_mul(1_000).is_some(),
    };
    if fits { Ok(micros) } else { Err(Some(format!("a column in {unit:?}s can't hold it"))) }
}

#[cfg(test)]
mod tests;
