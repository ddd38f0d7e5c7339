//! One JSON scalar as one Avro value, or what was expected instead.

use apache_avro::schema::{DecimalSchema, InnerDecimalSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema, Uuid};
use base64::Engine;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use serde_json::Value as Json;

/// What the contract wanted in place of a value.
pub(super) struct Expected {
    pub expected: String,
    pub hint: Option<String>,
}

fn expected<T>(expected: &str) -> Result<T, Expected> {
    Err(Expected { expected: expected.into(), hint: None })
}

fn with_hint<T>(expected: &str, hint: String) -> Result<T, Expected> {
    Err(Expected { expected: expected.into(), hint: Some(hint) })
}

/// The value of a scalar schema. `of_default`: it is spelt as in a schema's default, in what Avro stores: bytes as one
/// code point per byte and not as base64, a timestamp in the schema's own unit.
pub(super) fn value(schema: &Schema, json: &Json, of_default: bool) -> Result<Value, Expected> {
    match schema {
        Schema::Boolean => json.as_bool().map_or_else(|| expected("true or false"), |b| Ok(Value::Boolean(b))),
        Schema::Int => integer(json, "an int (32 bits, signed)").map(Value::Int),
        Schema::Long => integer(json, "a long (64 bits, signed)").map(Value::Long),
        Schema::Double => double(json, "a double").map(Value::Double),
        Schema::Float => match double(json, "a float")? {
            wide if wide.is_finite() && (wide as f32).is_infinite() => expected("a float (32 bits)"),
            wide => Ok(Value::Float(wide as f32)),
        },
        Schema::String => json.as_str().map_or_else(|| expected("a string"), |s| Ok(Value::String(s.into()))),
        Schema::Bytes => bytes(json, of_default, None).map(Value::Bytes),
        Schema::Fixed(fixed) => bytes(json, of_default, Some(fixed.size)).map(|b| Value::Fixed(fixed.size, b)),
        Schema::Decimal(d) if of_default => bytes(json, true, None).map(|b| Value::Decimal(Decimal::from(b))),
        Schema::Decimal(d) => decimal(json, d),
        Schema::Uuid(_) => match json.as_str().map(Uuid::parse_str) {
            Some(Ok(uuid)) => Ok(Value::Uuid(uuid)),
            _ => expected("a uuid, such as \"67e55044-10b1-426f-9247-bb680e5fe0c8\""),
        },
        Schema::Date => date(json).map(Value::Date),
        Schema::TimeMillis => time(json, 1_000, "milliseconds").and_then(|t| match i32::try_from(t) {
            Ok(t) => Ok(Value::TimeMillis(t)),
            Err(_) => expected("a time of day"),
        }),
        Schema::TimeMicros => time(json, 1, "microseconds").map(Value::TimeMicros),
        Schema::TimestampMicros => instant(json, false).map(Value::TimestampMicros),
        Schema::TimestampMillis if of_default => integer(json, "milliseconds").map(Value::TimestampMillis),
        Schema::LocalTimestampMillis if of_default => integer(json, "milliseconds").map(Value::LocalTimestampMillis),
        Schema::TimestampMillis => instant(json, false).and_then(millis).map(Value::TimestampMillis),
        Schema::LocalTimestampMicros => instant(json, true).map(Value::LocalTimestampMicros),
        Schema::LocalTimestampMillis => instant(json, true).and_then(millis).map(Value::LocalTimestampMillis),
        other => expected(&format!("a {other:?}")),
    }
}

fn integer<T: TryFrom<i64>>(json: &Json, what: &str) -> Result<T, Expected> {
    match json.as_i64().map(T::try_from) {
        Some(Ok(value)) => Ok(value),
        _ => unquote(json, what),
    }
}

fn double(json: &Json, what: &str) -> Result<f64, Expected> {
    match json {
        Json::Number(number) => number.as_f64().map_or_else(|| expected(what), Ok),
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => unquote(json, what),
        },
        _ => expected(what),
    }
}

fn unquote<T>(json: &Json, what: &str) -> Result<T, Expected> {
    match json.as_str() {
        Some(text) if text.parse::<f64>().is_ok() => with_hint(what, "remove the quotes".into()),
        _ => expected(what),
    }
}

fn bytes(json: &Json, avro_bytes: bool, size: Option<usize>) -> Result<Vec<u8>, Expected> {
    let what = match size {
        Some(size) => format!("{size} bytes as base64"),
        None => "bytes as base64".into(),
    };
    let bytes = match json.as_str() {
        Some(text) if avro_bytes => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
        Some(text) => base64::engine::general_purpose::STANDARD.decode(text).ok(),
        None => None,
    };
    match bytes {
        Some(bytes) if size.is_none_or(|size| size == bytes.len()) => Ok(bytes),
        _ => expected(&what),
    }
}

fn decimal(json: &Json, schema: &DecimalSchema) -> Result<Value, Expected> {
    let what = format!("a decimal({}, {})", schema.precision, schema.scale);
    let text = match json {
        Json::Number(number) => number.to_string(),
        Json::String(text) => text.clone(),
        _ => return expected(&what),
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || whole.is_empty() {
        return with_hint(&what, "write it in plain digits, such as \"12.50\"".into());
    }
    if fraction.len() > schema.scale {
        return with_hint(&what, format!("it has {} digits after the point", fraction.len()));
    }
    let unscaled = format!("{whole}{fraction:0<scale$}", scale = schema.scale);
    let unscaled = unscaled.trim_start_matches('0');
    if unscaled.len() > schema.precision {
        return with_hint(&what, format!("it needs {} digits", unscaled.len()));
    }
    let Ok(unscaled) = (if unscaled.is_empty() { Ok(0) } else { unscaled.parse::<i128>() }) else {
        return expected(&what);
    };
    let unscaled = (sign * unscaled).to_be_bytes();
    let bytes = match &schema.inner {
        InnerDecimalSchema::Bytes => shortest(&unscaled).to_vec(),
        InnerDecimalSchema::Fixed(fixed) => match shortest(&unscaled) {
            short if short.len() <= fixed.size => {
                let fill = if sign < 0 && short.first().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
                let mut padded = vec![fill; fixed.size - short.len()];
                padded.extend_from_slice(short);
                padded
            }
            _ => return expected(&what),
        },
    };
    Ok(Value::Decimal(Decimal::from(bytes)))
}

/// Two's complement without the leading bytes that only repeat the sign.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut short = bytes;
    while let [first, second, ..] = short {
        let redundant = (*first == 0 && second & 0x80 == 0) || (*first == 0xFF && second & 0x80 != 0);
        if !redundant {
            break;
        }
        short = &short[1..];
    }
    short
}

fn date(json: &Json) -> Result<i32, Expected> {
    let what = "a date, such as \"2026-01-31\", or days since 1970-01-01";
    if let Some(text) = json.as_str() {
        let days = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|d| (d - NaiveDate::default()).num_days());
        return days.and_then(|d| i32::try_from(d).ok()).map_or_else(|| expected(what), Ok);
    }
    integer(json, what)
}

/// A time of day in units of `unit` microseconds.
fn time(json: &Json, unit: i64, unit_name: &str) -> Result<i64, Expected> {
    let what = format!("a time of day, such as \"13:45:00\", or {unit_name} since midnight");
    let micros = match json.as_str() {
        Some(text) => match text.parse::<NaiveTime>() {
            Ok(t) => i64::from(t.num_seconds_from_midnight()) * 1_000_000 + i64::from(t.nanosecond()) / 1_000,
            Err(_) => return expected(&what),
        },
        None => integer::<i64>(json, &what)?.saturating_mul(unit),
    };
    if !(0..86_400_000_000).contains(&micros) {
        return expected(&what);
    }
    if micros % unit != 0 {
        return with_hint(&what, format!("the contract stores {unit_name}"));
    }
    Ok(micros / unit)
}

/// Microseconds since 1970 in UTC. `local`: a wall-clock time, whose zone is not given.
fn instant(json: &Json, local: bool) -> Result<i64, Expected> {
    let what = "a timestamp: RFC 3339 text, such as \"2026-01-31T13:45:00Z\", or integer microseconds since 1970";
    let Some(text) = json.as_str() else {
        return integer(json, what);
    };
    let naive = || text.parse::<NaiveDateTime>().ok();
    match (DateTime::parse_from_rfc3339(text), local) {
        (Ok(time), _) => Ok(time.timestamp_micros()),
        (Err(_), true) => naive().map_or_else(|| expected(what), |t| Ok(t.and_utc().timestamp_micros())),
        (Err(_), false) if naive().is_some() => with_hint(what, format!("add the zone: \"{text}Z\" for UTC")),
        (Err(_), false) => expected(what),
    }
}

fn millis(micros: i64) -> Result<i64, Expected> {
    if micros % 1_000 != 0 {
        return with_hint("a timestamp in whole milliseconds", "the contract stores timestamp-millis".into());
    }
    Ok(micros / 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decimal_schema(scale: usize, inner: InnerDecimalSchema) -> DecimalSchema {
        DecimalSchema { precision: 6, scale, inner }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let unscaled = |json: Json| match decimal(&json, &decimal_schema(2, InnerDecimalSchema::Bytes)) {
            Ok(Value::Decimal(d)) => {
                let bytes = Vec::<u8>::try_from(&d).unwrap();
                let sign = if bytes[0] & 0x80 != 0 { 0xFF } else { 0 };
                let mut wide = [sign; 16];
                wide[16 - bytes.len()..].copy_from_slice(&bytes);
                Ok(i128::from_be_bytes(wide))
            }
            Ok(other) => Err(format!("{other:?}")),
            Err(e) => Err(e.hint.unwrap_or(e.expected)),
        };
        assert_eq!(unscaled(json!(12.5)), Ok(1250));
        assert_eq!(unscaled(json!("-12.50")), Ok(-1250));
        assert_eq!(unscaled(json!("-1.28")), Ok(-128));
        assert_eq!(unscaled(json!(0)), Ok(0));
        assert_eq!(unscaled(json!("9999.99")), Ok(999_999));
        assert_eq!(unscaled(json!("12.500")), Ok(1250));
        assert_eq!(unscaled(json!("10000.00")), Err("it needs 7 digits".into()));
        assert_eq!(unscaled(json!("0.001")), Err("it has 3 digits after the point".into()));
        for bad in [json!("1e3"), json!(""), json!("-"), json!("1.2.3"), json!("--1"), json!("."), json!("£1")] {
            assert!(unscaled(bad).is_err());
        }
    }

    #[test]
    fn instants_and_times() {
        let at = |json: Json| value(&Schema::TimestampMicros, &json, false).ok();
        assert_eq!(at(json!("1969-12-31T23:59:59.999999Z")), Some(Value::TimestampMicros(-1)));
        assert_eq!(at(json!("1970-01-01T01:00:00+01:00")), Some(Value::TimestampMicros(0)));
        assert_eq!(at(json!(-7)), Some(Value::TimestampMicros(-7)));
        assert_eq!(at(json!("yesterday")), None);
        let ms = |json: Json| value(&Schema::TimestampMillis, &json, false).ok();
        assert_eq!(ms(json!(5_000)), Some(Value::TimestampMillis(5)));
        assert_eq!(ms(json!(5_001)), None);
        // A default is in the unit that is stored, as every reader of the schema takes it.
        let default = value(&Schema::TimestampMillis, &json!(5_001), true).ok();
        assert_eq!(default, Some(Value::TimestampMillis(5_001)));
        assert_eq!(value(&Schema::Date, &json!("1970-01-02"), false).ok(), Some(Value::Date(1)));
        assert_eq!(value(&Schema::TimeMillis, &json!("00:00:01.5"), false).ok(), Some(Value::TimeMillis(1_500)));
        assert_eq!(value(&Schema::TimeMicros, &json!("24:00:00"), false).ok(), None);
    }
}
