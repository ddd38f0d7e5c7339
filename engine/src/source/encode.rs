//! JSON records in, Avro messages out: how pushed events enter a source.
//!
//! Guarantees: strict. A record is taken whole and exactly as the contract says, or refused with the field,
//! what was found, what was expected and a hint; nothing is coerced, cut or dropped in silence. What is
//! taken decodes to the same values.
//!
//! Forms: doubles and floats also as `"NaN"`, `"Infinity"`, `"-Infinity"`; timestamps as RFC 3339 text or as
//! integer microseconds (whatever the contract stores); dates as `YYYY-MM-DD`; times as `HH:MM:SS[.ffffff]`;
//! decimals as numbers or text; bytes as base64; enums as their symbol. A missing field takes its default.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use serde_json::Value as Json;

use super::contract::Contract;
use super::event_time::refuse_time;
use super::framing::WriterId;
use super::json_values as scalar;
use super::nearest::nearest;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field \"{field}\": found {found}, expected {expected}{}", hint.as_ref().map(|h| format!("; hint: {h}")).unwrap_or_default())]
pub struct EncodeError {
    /// The path of the field: `address.city`, `tags[2]`; empty for the record itself.
    pub field: String,
    pub found: String,
    pub expected: String,
    pub hint: Option<String>,
}

/// Encodes records of one contract.
#[derive(Debug, Clone)]
pub struct Encoder {
    contract: Arc<Contract>,
    /// What messages say of their schema, which decides their framing.
    writer: WriterId,
    /// The column with the event time, and how far past the clock it may lie, in microseconds.
    time: Option<(String, i64)>,
}

impl Encoder {
    /// Messages are in Avro's single-object encoding.
    pub fn new(contract: Arc<Contract>) -> Encoder {
        Encoder { writer: WriterId::Rabin(contract.fingerprint()), contract, time: None }
    }

    /// Messages are in Confluent's wire format, with the contract's id in a schema registry.
    pub fn framed_by(self, id: u32) -> Encoder {
        Encoder { writer: WriterId::Registry(id), ..self }
    }

    /// Refuses events that have no event time, or one too far in the future: the stream would refuse them later.
    pub fn checking(self, column: &str, max_future: i64) -> Encoder {
        Encoder { time: Some((column.to_owned(), max_future)), ..self }
    }

    /// One record as a message: framed, see [`Encoder::frame`].
    pub fn encode(&self, record: &Json) -> Result<Bytes, EncodeError> {
        self.encode_batch(std::slice::from_ref(record), i64::MAX).pop().unwrap_or_else(|| Err(self.broken("no record")))
    }

    /// Each record by itself, as taken in at `now` (microseconds UTC): one that is refused does not touch the others.
    pub fn encode_batch(&self, records: &[Json], now: i64) -> Vec<Result<Bytes, EncodeError>> {
        let writer = GenericDatumWriter::builder(self.contract.avro()).build();
        let writer = match writer {
            Ok(writer) => writer,
            Err(e) => {
                return records.iter().map(|_| Err(self.broken(&e.to_string()))).collect();
            }
        };
        records
            .iter()
            .map(|record| {
                let value = self.value(self.contract.avro(), record, "", Origin::Record)?;
                self.check_time(&value, record, now)?;
                let datum = writer.write_value_to_vec(value).map_err(|e| self.broken(&e.to_string()))?;
                Ok(self.frame(&datum))
            })
            .collect()
    }

    /// A datum of the contract behind what names its schema, see [`super::framing`].
    pub fn frame(&self, datum: &[u8]) -> Bytes {
        self.writer.frame(datum).into()
    }

    fn check_time(&self, value: &Value, json: &Json, now: i64) -> Result<(), EncodeError> {
        let (Some((column, max_future)), Value::Record(fields)) = (&self.time, value) else {
            return Ok(());
        };
        let time = fields.iter().find(|(name, _)| name == column).and_then(|(_, value)| micros(value));
        match refuse_time(column, time, now, *max_future) {
            None => Ok(()),
            Some(reason) => {
                let found = json.get(column).unwrap_or(&Json::Null);
                let expected = match time {
                    Some(_) => format!("a time at most {} seconds past the clock", max_future / 1_000_000),
                    None => "the event's time".to_owned(),
                };
                let hint = reason.split_once("hint: ").map(|(_, hint)| hint.to_owned());
                Err(EncodeError { hint, ..refused(column, found, &expected) })
            }
        }
    }

    fn broken(&self, cause: &str) -> EncodeError {
        EncodeError {
            field: String::new(),
            found: cause.into(),
            expected: format!("a record that contract {} can write", self.contract.name()),
            hint: None,
        }
    }

    fn value(&self, schema: &Schema, json: &Json, path: &str, origin: Origin) -> Result<Value, EncodeError> {
        match self.contract.deref(schema) {
            Schema::Record(record) => {
                let Json::Object(object) = json else {
                    return Err(refused(path, json, "an object with the record's fields"));
                };
                let known = |name: &str| record.fields.iter().any(|f| f.name == name);
                if let Some(unknown) = object.keys().find(|name| !known(name)) {
                    return Err(unknown_field(path, unknown, &record.fields));
                }
                let fields = record.fields.iter().map(|field| {
                    let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
                    let value = match (object.get(&field.name), &field.default) {
                        (Some(given), _) => self.value(&field.schema, given, &path, origin)?,
                        (None, Some(default)) => self.value(&field.schema, default, &path, Origin::Default)?,
                        (None, None) => {
                            return Err(missing(&path, self.contract.deref(&field.schema), object.keys()));
                        }
                    };
                    Ok((field.name.clone(), value))
                });
                Ok(Value::Record(fields.collect::<Result<_, _>>()?))
            }
            Schema::Union(union) => {
                let null = union.variants().iter().position(|v| matches!(v, Schema::Null));
                let inner = union.variants().iter().enumerate().find(|(_, v)| !matches!(v, Schema::Null));
                match (json, null, inner) {
                    (Json::Null, Some(at), _) => Ok(Value::Union(at as u32, Box::new(Value::Null))),
                    (_, _, Some((at, inner))) => {
                        let value = self.value(inner, json, path, origin)?;
                        Ok(Value::Union(at as u32, Box::new(value)))
                    }
                    _ => Err(refused(path, json, "null")),
                }
            }
            Schema::Array(array) => match json {
                Json::Array(items) => items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.value(&array.items, item, &format!("{path}[{i}]"), origin))
                    .collect::<Result<_, _>>()
                    .map(Value::Array),
                _ => Err(refused(path, json, "an array")),
            },
            Schema::Map(map) => match json {
                Json::Object(entries) => entries
                    .iter()
                    .map(|(key, v)| Ok((key.clone(), self.value(&map.types, v, &format!("{path}.{key}"), origin)?)))
                    .collect::<Result<_, _>>()
                    .map(Value::Map),
                _ => Err(refused(path, json, "an object of names and values")),
            },
            Schema::Enum(e) => match json.as_str().map(|text| e.symbols.iter().position(|s| s == text)) {
                Some(Some(at)) => Ok(Value::Enum(at as u32, e.symbols.get(at).cloned().unwrap_or_default())),
                _ => {
                    let near = json.as_str().and_then(|text| nearest(text, e.symbols.iter()));
                    let hint = near.map(|symbol| format!("did you mean \"{symbol}\"?"));
                    Err(EncodeError { hint, ..refused(path, json, &format!("one of {}", e.symbols.join(", "))) })
                }
            },
            plain => scalar::value(plain, json, origin == Origin::Default)
                .map_err(|e| EncodeError { hint: e.hint, ..refused(path, json, &e.expected) }),
        }
    }
}

/// An instant in microseconds.
fn micros(value: &Value) -> Option<i64> {
    match value {
        Value::Union(_, inner) => micros(inner),
        Value::TimestampMicros(at) | Value::LocalTimestampMicros(at) => Some(*at),
        Value::TimestampMillis(at) | Value::LocalTimestampMillis(at) => Some(at.saturating_mul(1000)),
        Value::TimestampNanos(at) | Value::LocalTimestampNanos(at) => Some(at.div_euclid(1000)),
        _ => None,
    }
}

/// A default in a schema spells bytes in Avro's own way, a record in base64.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Record,
    Default,
}

fn refused(path: &str, found: &Json, expected: &str) -> EncodeError {
    EncodeError { field: path.into(), found: show(found), expected: expected.into(), hint: None }
}

fn unknown_field(path: &str, unknown: &str, fields: &[RecordField]) -> EncodeError {
    let names = || fields.iter().map(|f| &f.name);
    let field = if path.is_empty() { unknown.to_owned() } else { format!("{path}.{unknown}") };
    let hint = match nearest(unknown, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "remove it, or add it to the contract".into(),
    };
    EncodeError {
        field,
        found: "a field that the contract does not have".into(),
        expected: format!("one of {}", names().map(String::as_str).collect::<Vec<_>>().join(", ")),
        hint: Some(hint),
    }
}

fn missing<'a>(path: &str, schema: &Schema, given: impl Iterator<Item = &'a String>) -> EncodeError {
    let name = path.rsplit('.').next().unwrap_or(path);
    let nullable = matches!(schema, Schema::Union(u) if u.is_nullable());
    let hint = match nearest(name, given) {
        Some(near) => Some(format!("\"{near}\" looks like it")),
        None if nullable => Some("send null, or give the field a default in the contract".into()),
        None => None,
    };
    let expected = if nullable { "a value or null (the contract has no default)" } else { "a value" };
    EncodeError { field: path.into(), found: "nothing".into(), expected: expected.into(), hint }
}

/// What was found, in a few words: the type and the value, cut short.
fn show(json: &Json) -> String {
    let kind = match json {
        Json::Null => return "null".into(),
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => return "an array".into(),
        Json::Object(_) => return "an object".into(),
    };
    let text = json.to_string();
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{kind} {short}…") } else { format!("{kind} {short}") }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
