//! Entity keys as text: canonical, readable in a store's own tools, and reversible.
//!
//! The parts of a key stand in the order of its columns, joined by `|`. A part is:
//!
//! * an integer in decimal digits, of any width the same; a boolean as `true` or `false`;
//! * a decimal with all digits of its scale (`1.50`);
//! * a date as `2024-02-29`, a timestamp as `2024-02-29T12:30:00Z` with as many digits of a second as it needs; outside
//!   the years 1 to 9999 as `@` and the number that the column holds;
//! * a string as it is, in UTF-8, with `%`, `|`, `{`, `}`, whitespace and control characters as `%XX` for each byte.
//!
//! Equal values give equal texts whatever the column's encoding (dictionary, view, large). A key with a NULL in any
//! part is no key.

mod text;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use self::text::{date_text, escape, parse_date, parse_timestamp, timestamp_text, unescape};
use super::KernelError;
use ahash::RandomState;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArray, downcast_integer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Date64Type, Field, Int64Type, TimeUnit};

/// The text of an entity key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey(Arc<str>);

impl EntityKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for EntityKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<String> for EntityKey {
    fn from(text: String) -> Self {
        EntityKey(text.into())
    }
}

/// Whether a column of this type can be part of a key.
pub fn is_key_type(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Dictionary(_, values) => is_key_type(values),
        Boolean | Utf8 | LargeUtf8 | Utf8View | Date32 | Date64 | Timestamp(..) => true,
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => true,
        other => other.is_integer(),
    }
}

/// A key for each row, or none where a part of it is NULL. Each distinct key is there once.
#[derive(Debug, Clone, Default)]
pub struct RowKeys {
    distinct: Vec<EntityKey>,
    rows: Vec<Option<u32>>,
}

impl RowKeys {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&EntityKey>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The key of a row.
    pub fn get(&self, row: usize) -> Option<&EntityKey> {
        self.distinct.get((*self.rows.get(row)?)? as usize)
    }

    pub fn distinct(&self) -> &[EntityKey] {
        &self.distinct
    }

    /// For each row, which of the distinct keys it has.
    pub fn places(&self) -> &[Option<u32>] {
        &self.rows
    }
}

/// One key per row; none where any part is NULL. Columns must be equally long.
pub fn encode_keys(columns: &[ArrayRef]) -> Result<RowKeys, KernelError> {
    let rows = columns.first().map_or(0, |column| column.len());
    for (index, column) in columns.iter().enumerate() {
        if !is_key_type(column.data_type()) {
            return Err(KernelError::KeyType { index, data_type: column.data_type().clone() });
        }
        if column.len() != rows {
            return Err(KernelError::Rows(format!(
                "key column {index} has {} rows, the first has {rows}",
                column.len()
            )));
        }
    }
    if let [column] = columns {
        macro_rules! integers {
            ($type:ty) => {
                return Ok(integers(column.as_primitive::<$type>()))
            };
        }
        downcast_integer! { column.data_type() => (integers), _ => {} }
    }
    let parts = columns.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    let mut places: HashMap<EntityKey, u32, RandomState> = HashMap::default();
    let mut distinct = vec![];
    let keys = (0..rows).map(|row| {
        text.clear();
        for (index, part) in parts.iter().enumerate() {
            if part.is_null(row) {
                return None;
            }
            if index > 0 {
                text.push('|');
            }
            escape(part.value(row), &mut text);
        }
        if let Some(place) = places.get(text.as_str()) {
            return Some(*place);
        }
        let (key, place) = (EntityKey(text.as_str().into()), distinct.len() as u32);
        distinct.push(key.clone());
        places.insert(key, place);
        Some(place)
    });
    Ok(RowKeys { rows: keys.collect(), distinct })
}

/// Keys that are one number: a text only for each distinct one.
fn integers<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>) -> RowKeys
where
    T::Native: Hash + Eq + fmt::Display,
{
    let mut places: HashMap<T::Native, u32, RandomState> = HashMap::default();
    let mut distinct = vec![];
    let rows = column.iter().map(|value| {
        let value = value?;
        Some(*places.entry(value).or_insert_with(|| {
            distinct.push(EntityKey::from(value.to_string()));
            distinct.len() as u32 - 1
        }))
    });
    RowKeys { rows: rows.collect(), distinct }
}

/// The key's columns back from its texts, a row each, of the fields' types. The inverse of [`encode_keys`].
pub fn decode_keys(keys: &[EntityKey], fields: &[Field]) -> Result<Vec<ArrayRef>, KernelError> {
    let mut parts: Vec<Vec<String>> = vec![Vec::with_capacity(keys.len()); fields.len()];
    for key in keys {
        let error = |message: String| KernelError::KeyText { key: key.to_string(), message };
        let count = key.as_str().split('|').count();
        if count != fields.len() {
            return Err(error(format!("it has {count} parts, expected {}", fields.len())));
        }
        for (texts, part) in parts.iter_mut().zip(key.as_str().split('|')) {
            texts.push(unescape(part).ok_or_else(|| error(format!("{part:?} has a broken %-escape")))?);
        }
    }
    parts.into_iter().zip(fields).map(|(texts, field)| column(texts, field)).collect()
}

/// A column's texts, before escaping.
fn texts(column: &ArrayRef) -> Result<StringArray, KernelError> {
    use DataType::*;
    let as_texts =
        |column: &ArrayRef| -> Result<StringArray, KernelError> { Ok(cast(column, &Utf8)?.as_string::<i32>().clone()) };
    Ok(match column.data_type() {
        Dictionary(_, values) => texts(&cast(column, values)?)?,
        Date32 => {
            let days = column.as_primitive::<Date32Type>();
            days.iter().map(|days| days.map(date_text)).collect()
        }
        Date64 => {
            let millis = column.as_primitive::<Date64Type>();
            millis.iter().map(|millis| millis.map(|millis| timestamp_text(millis, TimeUnit::Millisecond))).collect()
        }
        Timestamp(unit, _) => {
            let ticks = cast(column, &Int64)?;
            ticks
                .as_primitive::<Int64Type>()
                .iter()
                .map(|ticks| ticks.map(|ticks| timestamp_text(ticks, *unit)))
                .collect()
        }
        _ => as_texts(column)?,
    })
}

/// A column from texts.
fn column(texts: Vec<String>, field: &Field) -> Result<ArrayRef, KernelError> {
    use DataType::*;
    let numbers = |parse: &dyn Fn(&str) -> Option<i64>| -> Result<ArrayRef, KernelError> {
        let numbers = texts.iter().map(|text| parse(text).ok_or_else(|| unreadable(text, field)));
        Ok(Arc::new(numbers.collect::<Result<Vec<i64>, _>>().map(arrow::array::Int64Array::from)?))
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    match field.data_type() {
        Dictionary(_, values) => {
            let values = column(texts, &Field::new(field.name(), values.as_ref().clone(), field.is_nullable()))?;
            Ok(cast(&values, field.data_type())?)
        }
        Date32 => {
            let days = numbers(&parse_date)?;
            Ok(cast_with_options(&cast_with_options(&days, &Int32, &strict)?, &Date32, &strict)?)
        }
        Date64 => Ok(cast(&numbers(&|text| parse_timestamp(text, TimeUnit::Millisecond))?, &Date64)?),
        Timestamp(unit, _) => Ok(cast(&numbers(&|text| parse_timestamp(text, *unit))?, field.data_type())?),
        data_type => {
            let texts: ArrayRef = Arc::new(StringArray::from(texts));
            cast_with_options(&texts, data_type, &strict)
                .map_err(|error| KernelError::KeyText { key: field.name().clone(), message: error.to_string() })
        }
    }
}

fn unreadable(text: &str, field: &Field) -> KernelError {
    KernelError::KeyText {
        key: text.to_owned(),
        message: format!("it doesn't read as {}, the type of {:?}", field.data_type(), field.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;

    fn round_trip(columns: Vec<ArrayRef>, expected: &[Option<&str>]) {
        let keys = encode_keys(&columns).unwrap();
        let texts: Vec<Option<&str>> = keys.iter().map(|key| key.map(EntityKey::as_str)).collect();
        assert_eq!(texts, expected);
        assert!(keys.distinct().iter().enumerate().all(|(i, key)| !keys.distinct()[..i].contains(key)));
        let present: Vec<EntityKey> = keys.iter().flatten().cloned().collect();
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new("key", column.data_type().clone(), true)).collect();
        let decoded = decode_keys(&present, &fields).unwrap();
        let rows: UInt32Array = (0..keys.len() as u32).filter(|row| keys.get(*row as usize).is_some()).collect();
        for (column, decoded) in columns.iter().zip(decoded) {
            let column = arrow::compute::take(column, &rows, None).unwrap();
            assert_eq!(&column, &decoded);
        }
    }

    #[test]
    fn parts_are_joined_and_escaped() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(-1), None, Some(0)]));
        let names: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a|b%{c}"), Some("zwölf monate"), Some("x"), Some("")]));
        round_trip(vec![numbers, names], &[Some("7|a%7Cb%25%7Bc%7D"), Some("-1|zwölf%20monate"), None, Some("0|")]);
        let odd: ArrayRef = Arc::new(LargeStringArray::from(vec!["\u{a0}\n", "%41"]));
        round_trip(vec![odd], &[Some("%C2%A0%0A"), Some("%2541")]);
    }

    #[test]
    fn every_type_comes_back() {
        round_trip(vec![Arc::new(UInt64Array::from(vec![u64::MAX]))], &[Some("18446744073709551615")]);
        round_trip(vec![Arc::new(Int8Array::from(vec![-128]))], &[Some("-128")]);
        round_trip(
            vec![Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))],
            &[Some("true"), None, Some("false")],
        );
        round_trip(
            vec![Arc::new(StringViewArray::from(vec!["a string longer than a view's twelve bytes"]))],
            &[Some("a%20string%20longer%20than%20a%20view's%20twelve%20bytes")],
        );
        let dictionary: DictionaryArray<arrow::datatypes::Int32Type> = vec!["a", "b", "a"].into_iter().collect();
        round_trip(vec![Arc::new(dictionary)], &[Some("a"), Some("b"), Some("a")]);
        let dates = Date32Array::from(vec![0, -1, 19_782, i32::MAX, i32::MIN, -719_162, -719_163]);
        let texts = ["1970-01-01", "1969-12-31", "2024-02-29", "@2147483647", "@-2147483648", "0001-01-01", "@-719163"];
        round_trip(vec![Arc::new(dates)], &texts.map(Some));
        round_trip(vec![Arc::new(Date64Array::from(vec![86_400_000]))], &[Some("1970-01-02T00:00:00Z")]);
        let times = TimestampMicrosecondArray::from(vec![-1, 0, 1_500_000, i64::MAX]).with_timezone("UTC");
        let texts =
            ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:01.500Z", "@9223372036854775807"];
        round_trip(vec![Arc::new(times)], &texts.map(Some));
        round_trip(vec![Arc::new(TimestampNanosecondArray::from(vec![1]))], &[Some("1970-01-01T00:00:00.000000001Z")]);
        round_trip(vec![Arc::new(TimestampSecondArray::from(vec![i64::MIN]))], &[Some("@-9223372036854775808")]);
        let decimals = Decimal128Array::from(vec![150, -5]).with_precision_and_scale(10, 2).unwrap();
        round_trip(vec![Arc::new(decimals)], &[Some("1.50"), Some("-0.05")]);
        let decimals = Decimal64Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap();
        round_trip(vec![Arc::new(decimals)], &[Some("1.50")]);
    }

    #[test]
    fn doubles_are_no_keys_and_texts_are_checked() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(!is_key_type(doubles.data_type()));
        let error = encode_keys(&[doubles]).unwrap_err().to_string();
        assert!(error.contains("Float64") && error.contains("hint"), "{error}");
        let field = [Field::new("user_id", DataType::Int64, false)];
        for text in ["x", "1|2", "%4", "%GG", "99999999999999999999"] {
            assert!(decode_keys(&[EntityKey::from(text.to_owned())], &field).is_err(), "{text}");
        }
    }
}
