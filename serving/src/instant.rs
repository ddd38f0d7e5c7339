//! Instants in JSON: RFC 3339 text, or integer microseconds since 1970, UTC.

use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::json_in::found;
use crate::problem::FieldErrors;

/// What a client may write.
pub const EXPECTED: &str =
    "an instant: RFC 3339 text, such as \"2026-01-31T13:45:00Z\", or integer microseconds since 1970";

/// An instant as it is answered: RFC 3339 in UTC with microseconds; a plain number of microseconds outside the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(pub i64);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match DateTime::from_timestamp_micros(self.0) {
            Some(time) => serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => serializer.serialize_i64(self.0),
        }
    }
}

/// Reads an instant; digits finer than microseconds are cut off. The error is a hint, if there is one to give.
pub fn parse(json: &Json) -> Result<i64, Option<String>> {
    match json {
        Json::Number(number) => number.as_i64().ok_or(None),
        Json::String(text) => parse_text(text),
        _ => Err(None),
    }
}

/// Reads the `as_of` of a query string: text, where a number is microseconds.
pub fn parse_query(text: &str) -> Result<i64, Option<String>> {
    text.parse().or_else(|_| parse_text(text))
}

fn parse_text(text: &str) -> Result<i64, Option<String>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_micros());
    }
    if text.parse::<NaiveDateTime>().is_ok() {
        return Err(Some(format!("add the zone: \"{text}Z\" for UTC")));
    }
    match text.rsplit_once(' ') {
        // A plus sign in a query string means a space.
        Some((time, zone)) if DateTime::parse_from_rfc3339(&format!("{time}+{zone}")).is_ok() => {
            Err(Some("in a query string write the plus sign of the zone as %2B".to_owned()))
        }
        _ => Err(None),
    }
}

/// The instant of each row: `as_of` is absent (all rows read now), one instant for all rows, or an array with one for each.
pub fn as_of(json: Option<&Json>, rows: usize, now: i64) -> Result<Vec<i64>, FieldErrors> {
    let mut errors = FieldErrors::default();
    let mut one = |json: &Json, field: &dyn Fn() -> String| match parse(json) {
        Ok(instant) => instant,
        Err(hint) => {
            errors.push(field(), format!("expected {EXPECTED}, found {}", found(json)), hint);
            now
        }
    };
    let instants = match json {
        None => vec![now; rows],
        Some(Json::Array(items)) if items.len() != rows => {
            errors.push(
                "as_of",
                format!(
                    "expected one instant, or an array with one for each of the {rows} rows, found {}",
                    items.len()
                ),
                None,
            );
            vec![]
        }
        Some(Json::Array(items)) => {
            items.iter().enumerate().map(|(i, item)| one(item, &|| format!("as_of[{i}]"))).collect()
        }
        Some(json) => vec![one(json, &|| "as_of".to_owned()); rows],
    };
    errors.or(instants)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn instants_are_read_and_written_in_utc() {
        assert_eq!(parse(&json!("1970-01-01T01:00:00.000001+01:00")), Ok(1));
        assert_eq!(parse(&json!(-7)), Ok(-7));
        assert_eq!(
            parse(&json!("2026-01-31T13:45:00")),
            Err(Some("add the zone: \"2026-01-31T13:45:00Z\" for UTC".into()))
        );
        assert!(parse(&json!(1.5)).is_err() && parse(&json!(null)).is_err() && parse(&json!("soon")).is_err());
        assert_eq!(
            parse_query("1970-01-01T00:00:00 01:00").unwrap_err().unwrap(),
            "in a query string write the plus sign of the zone as %2B"
        );
        assert_eq!(parse_query("12"), Ok(12));
        assert_eq!(json!(Instant(-1)), json!("1969-12-31T23:59:59.999999Z"));
        assert_eq!(json!(Instant(i64::MAX)), json!(i64::MAX));
    }

    #[test]
    fn as_of_is_one_instant_or_one_per_row() {
        let read = |json: Json| as_of(Some(&json), 2, 5).map_err(|e| e.to_string());
        assert_eq!(as_of(None, 2, 5).unwrap(), [5, 5]);
        assert_eq!(read(json!(9)).unwrap(), [9, 9]);
        assert_eq!(read(json!([1, "1970-01-01T00:00:00Z"])).unwrap(), [1, 0]);
        assert!(read(json!([1])).unwrap_err().contains("one for each of the 2 rows, found 1"));
        assert!(read(json!([1, null])).unwrap_err().starts_with("as_of[1]: expected an instant"));
    }
}
