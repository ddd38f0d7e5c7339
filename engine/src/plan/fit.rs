//! A column in another type, value for value.
//!
//! Guarantee: as strict as a REST call. A value either means the same in the new type or is refused with its row; it is
//! never cut to another value and never becomes NULL. NULL stays NULL. What means the same:
//!
//! * a whole number in any type of numbers that holds it: INT as BIGINT, 7.0 as BIGINT. A double above 2^53 is not
//!   whole for sure (it may have lost digits before it came here), so it is refused as an integer;
//! * a number as the nearest DOUBLE or FLOAT to its digits, but an integer only if it is exact;
//! * a date as its midnight, UTC; an instant cut to the microsecond before it, as everywhere;
//! * text that spells a value of the type in full. Text is the only form that CSV has.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::{CastOptions, SortOptions, can_cast_types, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;

/// Doubles up to here are all of the integers that they look like.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Why a column does not fit.
#[derive(Debug)]
pub enum Misfit {
    /// No value of the one type means a value of the other.
    Types,
    /// The value in this row, from 0.
    Row(usize),
}

impl From<ArrowError> for Misfit {
    fn from(_: ArrowError) -> Self {
        Self::Types
    }
}

/// Whether values of a type can fit another at all.
pub fn may_fit(from: &DataType, to: &DataType) -> bool {
    let instant = |t: &DataType| matches!(t, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64);
    match (from, to) {
        (DataType::Dictionary(_, from), to) => may_fit(from, to),
        (from, to) if from == to || from.is_null() => true,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (from, DataType::Timestamp(_, _)) if instant(from) => true,
        (DataType::Date32 | DataType::Date64, DataType::Date32 | DataType::Date64) => true,
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time32(_) | DataType::Time64(_)) => true,
        (from, to) if from.is_binary() && to.is_binary() => true,
        (from, to) if is_text(from) => {
            let time = matches!(to, DataType::Time32(_) | DataType::Time64(_));
            is_text(to) || to.is_numeric() || instant(to) || time || *to == DataType::Boolean
        }
        (from, to) => from.is_nested() && to.is_nested() && can_cast_types(from, to),
    }
}

/// The column in another type.
pub fn fit(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    let from = column.data_type();
    if from == to {
        return Ok(column.clone());
    }
    if !may_fit(from, to) {
        return Err(Misfit::Types);
    }
    match (from, to) {
        (DataType::Dictionary(_, values), _) => fit(&cast(column, values)?, to),
        (DataType::Null, _) => Ok(cast(column, to)?),
        (from, _) if is_text(from) => of_text(column, to),
        (DataType::Float16 | DataType::Float32, _) if to != &DataType::Float64 => {
            fit(&cast(column, &DataType::Float64)?, to)
        }
        (DataType::Float64, to) if to.is_integer() => {
            let doubles = column.as_primitive::<Float64Type>();
            checked(column, lenient(column, to)?, |i, _| {
                doubles.value(i).fract() == 0.0 && doubles.value(i).abs() <= WHOLE
            })
        }
        (DataType::Float64, to) if to.is_decimal() => of_text(&cast(column, &DataType::Utf8)?, to),
        (from, to) if to.is_floating() && !from.is_integer() => {
            let source = as_doubles(column)?;
            checked(column, lenient(column, to)?, |i, fitted| {
                fitted.value(i).is_finite() || !source.value(i).is_finite()
            })
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), to) => {
            // A plain cast cuts towards 1970, which before 1970 is the future.
            let micros = column.as_primitive::<TimestampNanosecondType>().unary(|n| n.div_euclid(1_000));
            let micros: arrow::array::TimestampMicrosecondArray = micros;
            fit(&(Arc::new(micros.with_timezone_opt(zone.clone())) as ArrayRef), to)
        }
        (from, to) => {
            let fitted = lenient(column, to)?;
            let back = lenient(&fitted, from)?;
            let order = arrow::array::make_comparator(column, &back, SortOptions::default())?;
            let changed = |i: usize| column.is_valid(i) && (fitted.is_null(i) || order(i, i).is_ne());
            (0..column.len()).find(|i| changed(*i)).map_or(Ok(fitted), |row| Err(Misfit::Row(row)))
        }
    }
}

fn of_text(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    let texts = cast(column, &DataType::Utf8)?;
    let texts: &StringArray = texts.as_string();
    let fitted = lenient(column, to)?;
    let spelt = |i: usize| match to {
        // Arrow would cut off the digits that are too many.
        DataType::Decimal32(_, s)
        | DataType::Decimal64(_, s)
        | DataType::Decimal128(_, s)
        | DataType::Decimal256(_, s) => spells_decimal(texts.value(i), usize::try_from(*s).unwrap_or(0)),
        // And the time behind a date.
        DataType::Date32 | DataType::Date64 => texts.value(i).len() <= "2026-01-31".len(),
        _ => true,
    };
    if to.is_floating() {
        let infinite = |text: &str| text.trim_start_matches(['+', '-']).to_lowercase().starts_with("inf");
        return checked(column, fitted, |i, doubles| !doubles.value(i).is_infinite() || infinite(texts.value(i)));
    }
    let bad = (0..column.len()).find(|i| column.is_valid(*i) && (fitted.is_null(*i) || !spelt(*i)));
    bad.map_or(Ok(fitted), |row| Err(Misfit::Row(row)))
}

/// The fitted column, if every value of it that came from one holds to `good`.
fn checked(
    column: &ArrayRef,
    fitted: ArrayRef,
    good: impl Fn(usize, &Float64Array) -> bool,
) -> Result<ArrayRef, Misfit> {
    let doubles = as_doubles(&fitted)?;
    let bad = (0..column.len()).find(|i| column.is_valid(*i) && (fitted.is_null(*i) || !good(*i, &doubles)));
    bad.map_or(Ok(fitted), |row| Err(Misfit::Row(row)))
}

/// Arrow's cast, with NULL for what it refuses.
fn lenient(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(column, to, &CastOptions { safe: true, ..CastOptions::default() })
}

fn as_doubles(column: &ArrayRef) -> Result<Float64Array, ArrowError> {
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

fn spells_decimal(text: &str, places: usize) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !whole.is_empty() && plain(whole) && plain(fraction) && fraction.trim_end_matches('0').len() <= places
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
        TimestampNanosecondArray,
    };

    use super::*;
    use crate::plan::timestamp_type;

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn doubles(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn row(column: &ArrayRef, to: &DataType) -> usize {
        match fit(column, to) {
            Err(Misfit::Row(row)) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_means_the_same_fits_and_null_stays_null() {
        let wide: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None]));
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        assert_eq!(&fit(&wide, &DataType::Int64).unwrap(), &longs);
        let pandas: ArrayRef = Arc::new(Float64Array::from(vec![Some(7.0), None]));
        assert_eq!(&fit(&pandas, &DataType::Int64).unwrap(), &longs);
        assert_eq!(&fit(&longs, &DataType::Float64).unwrap(), &pandas);
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), None]));
        assert_eq!(&fit(&text, &DataType::Int64).unwrap(), &longs);
        assert_eq!(&fit(&text, &DataType::Float64).unwrap(), &pandas);
        let categories =
            cast(&text, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))).unwrap();
        assert_eq!(&fit(&categories, &DataType::Utf8).unwrap(), &text);
        let decimal = DataType::Decimal128(6, 2);
        let cents: ArrayRef = Arc::new(Decimal128Array::from(vec![1250]).with_precision_and_scale(6, 2).unwrap());
        assert_eq!(&fit(&texts(&["12.500"]), &decimal).unwrap(), &cents);
        assert_eq!(&fit(&doubles(&[12.5]), &decimal).unwrap(), &cents);
        assert_eq!(&fit(&cents, &DataType::Float64).unwrap(), &doubles(&[12.5]));
    }

    #[test]
    fn what_would_be_another_value_is_refused_with_its_row() {
        let long = DataType::Int64;
        assert_eq!(row(&texts(&["1", "1.5"]), &long), 1);
        assert_eq!(row(&texts(&["1", "2", "abc"]), &long), 2);
        assert_eq!(row(&texts(&["9223372036854775807", "9223372036854775808"]), &long), 1);
        assert_eq!(row(&doubles(&[1.0, 1.5]), &long), 1);
        assert_eq!(row(&doubles(&[1.0, f64::NAN]), &long), 1);
        assert_eq!(row(&doubles(&[9_007_199_254_740_992.0, 9_007_199_254_740_994.0]), &long), 1);
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![1, 3_000_000_000]));
        assert_eq!(row(&longs, &DataType::Int32), 1);
        let odd: ArrayRef = Arc::new(Int64Array::from(vec![1, 9_007_199_254_740_993]));
        assert_eq!(row(&odd, &DataType::Float64), 1);
        assert_eq!(row(&texts(&["1", "1e999"]), &DataType::Float64), 1);
        assert_eq!(row(&doubles(&[1.0, 1e300]), &DataType::Float32), 1);
        let decimal = DataType::Decimal128(6, 2);
        assert_eq!(row(&texts(&["1.25", "1.255"]), &decimal), 1);
        assert_eq!(row(&texts(&["1", "12345.6"]), &decimal), 1);
        assert_eq!(row(&texts(&["2024-05-01", "2024-05-01T10:00:00Z"]), &DataType::Date32), 1);
        assert!(matches!(fit(&longs, &DataType::Utf8), Err(Misfit::Types)), "a number is no text");
    }

    #[test]
    fn instants_are_cut_to_the_microsecond_before_them() {
        let micros =
            |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_999, -1]));
        assert_eq!(&fit(&nanos, &timestamp_type()).unwrap(), &micros(vec![1, -1]));
        let written = texts(&["1970-01-01T00:00:00.000001999Z", "1969-12-31T23:59:59.999999999Z", "1970-01-01"]);
        assert_eq!(&fit(&written, &timestamp_type()).unwrap(), &micros(vec![1, -1, 0]));
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![-1]));
        assert_eq!(&fit(&dates, &timestamp_type()).unwrap(), &micros(vec![-86_400_000_000]));
        assert_eq!(row(&texts(&["1970-01-01T00:00:00Z", "noon"]), &timestamp_type()), 1);
    }
}
