//! The data contract of a source: an Avro record, and the Arrow columns that it means.
//!
//! Guarantees: the columns of [`Contract::columns`] are the very types that [`super::decode::Decoder`]
//! yields; every timestamp is `Timestamp(Microsecond, "UTC")`, every string, enum and uuid is `Utf8`; a
//! contract that parses can be decoded and encoded, so that no event finds out later.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::Names;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value as Json;

use super::META_COLUMNS;
use super::contract_check::{Problem, check_record};
use super::inline::inline;
use super::normalise::normal_fields;

/// An Avro record schema, checked, and the columns it stands for.
#[derive(Debug, Clone)]
pub struct Contract {
    name: String,
    json: String,
    avro: Schema,
    names: Names,
    columns: SchemaRef,
    docs: Vec<Option<String>>,
    fingerprint: u64,
}

/// Why a text is no contract. Says which contract, where in it, what was expected, and a hint.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("contract {name}: not JSON at {line}:{column}: {cause}; expected an Avro record schema")]
    Json { name: String, line: usize, column: usize, cause: String },
    #[error("contract {name}: not an Avro schema: {cause}; hint: {hint}")]
    Avro { name: String, cause: String, hint: String },
    #[error("contract {name}: field \"{field}\": {problem}; expected {expected}; hint: {hint}")]
    Field { name: String, field: String, problem: String, expected: String, hint: String },
}

impl Contract {
    /// Reads an Avro schema (the text of an `.avsc` file) as the contract `name`.
    pub fn parse(name: &str, text: &str) -> Result<Contract, ContractError> {
        let json: Json = serde_json::from_str(text).map_err(|e| ContractError::Json {
            name: name.into(),
            line: e.line(),
            column: e.column(),
            cause: e.to_string(),
        })?;
        let not_avro = |cause: String, hint: &str| ContractError::Avro { name: name.into(), cause, hint: hint.into() };
        let avro = Schema::parse(&json).map_err(|e| {
            not_avro(e.to_string(), "see https://avro.apache.org/docs/1.12.0/specification/ for the schema's form")
        })?;
        let Schema::Record(record) = &avro else {
            return Err(not_avro(
                "the top level is not a record".into(),
                r#"start with {"type": "record", "name": …, "fields": […]}"#,
            ));
        };
        if record.fields.is_empty() {
            return Err(not_avro("the record has no fields".into(), "an event needs at least its time"));
        }
        let mut names = Names::new();
        check_record(record, "", &mut names).map_err(|p| p.of(name))?;
        for field in &record.fields {
            if META_COLUMNS.iter().any(|reserved| field.name.eq_ignore_ascii_case(reserved)) {
                return Err(Problem {
                    field: field.name.clone(),
                    problem: "the name is reserved for the platform's own columns".into(),
                    expected: "any other name".into(),
                    hint: format!("rename it; reserved are {}", META_COLUMNS.join(", ")),
                }
                .of(name));
            }
        }
        let fingerprint = rabin(text).map_err(|cause| not_avro(cause, "check the schema's names and types"))?;
        let decoded = decoder_schema(&json, fingerprint)
            .map_err(|cause| not_avro(cause, "the decoder does not take this schema; simplify the types it names"))?;
        let columns = Arc::new(ArrowSchema::new(normal_fields(decoded.fields())));
        let docs = record.fields.iter().map(|f| f.doc.clone()).collect();
        Ok(Contract { name: name.into(), json: text.into(), avro, names, columns, docs, fingerprint })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record's full name: `dev.tidemark.Click`.
    pub fn record_name(&self) -> String {
        self.avro.name().map(|name| name.fullname(None)).unwrap_or_default()
    }

    /// The schema's JSON, as it was given.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// One column per field, in the contract's order, without the platform's own columns.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The description of a column: the field's `doc`.
    pub fn doc(&self, column: usize) -> Option<&str> {
        self.docs.get(column)?.as_deref()
    }

    /// CRC-64-AVRO (Rabin) of the schema's parsing canonical form: what names a writer's schema in an
    /// Avro single-object message.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(super) fn avro(&self) -> &Schema {
        &self.avro
    }

    /// What a reference inside the schema stands for.
    pub(super) fn deref<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.names.get(name).unwrap_or(schema),
            other => other,
        }
    }
}

fn rabin(text: &str) -> Result<u64, String> {
    match AvroSchema::new(text.into()).fingerprint(FingerprintAlgorithm::Rabin) {
        Ok(Fingerprint::Rabin(value)) => Ok(value),
        Ok(other) => Err(format!("unexpected fingerprint {other:?}")),
        Err(e) => Err(e.to_string()),
    }
}

fn decoder_schema(json: &Json, fingerprint: u64) -> Result<SchemaRef, String> {
    let mut store = SchemaStore::new();
    store
        .set(Fingerprint::Rabin(fingerprint), AvroSchema::new(inline(json)?.to_string()))
        .map_err(|e| e.to_string())?;
    let decoder = ReaderBuilder::new().with_writer_schema_store(store).build_decoder().map_err(|e| e.to_string())?;
    Ok(decoder.schema())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::super::normalise::utc_micros;
    use super::*;

    const EVERY_TYPE: &str = r#"{"type":"record","name":"Everything","namespace":"t","fields":[
        {"name":"b","type":"boolean","doc":"a flag"},
        {"name":"i","type":["null","int"],"default":null},
        {"name":"l","type":"long"},
        {"name":"f","type":"float"},
        {"name":"d","type":["double","null"]},
        {"name":"s","type":"string"},
        {"name":"y","type":"bytes"},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
        {"name":"e2","type":["null","E"]},
        {"name":"dec","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
        {"name":"date","type":{"type":"int","logicalType":"date"}},
        {"name":"tm","type":{"type":"int","logicalType":"time-millis"}},
        {"name":"tu","type":{"type":"long","logicalType":"time-micros"}},
        {"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"us","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"local","type":{"type":"long","logicalType":"local-timestamp-micros"}},
        {"name":"u","type":{"type":"string","logicalType":"uuid"}},
        {"name":"a","type":{"type":"array","items":["null","string"]}},
        {"name":"r","type":{"type":"record","name":"R","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}},
        {"name":"m","type":{"type":"map","values":"double"}},
        {"name":"x","type":{"type":"fixed","name":"X","size":4}}
    ]}"#;

    #[test]
    fn every_type_has_its_column() {
        let contract = Contract::parse("everything.v1", EVERY_TYPE).unwrap();
        let of = |name: &str| {
            let field = contract.columns().field_with_name(name).unwrap();
            (field.data_type().clone(), field.is_nullable())
        };
        assert_eq!(of("b"), (DataType::Boolean, false));
        assert_eq!(of("i"), (DataType::Int32, true));
        assert_eq!(of("l"), (DataType::Int64, false));
        assert_eq!(of("f"), (DataType::Float32, false));
        assert_eq!(of("d"), (DataType::Float64, true));
        assert_eq!(of("s"), (DataType::Utf8, false));
        assert_eq!(of("y"), (DataType::Binary, false));
        assert_eq!(of("e"), (DataType::Utf8, false));
        assert_eq!(of("e2"), (DataType::Utf8, true));
        assert_eq!(of("dec"), (DataType::Decimal128(10, 2), false));
        assert_eq!(of("date"), (DataType::Date32, false));
        assert_eq!(of("tm"), (DataType::Time32(TimeUnit::Millisecond), false));
        assert_eq!(of("tu"), (DataType::Time64(TimeUnit::Microsecond), false));
        assert_eq!(of("ms"), (utc_micros(), false));
        assert_eq!(of("us"), (utc_micros(), true));
        assert_eq!(of("local"), (utc_micros(), false));
        assert_eq!(of("u"), (DataType::Utf8, false));
        assert_eq!(of("a").0, DataType::new_list(DataType::Utf8, true));
        assert_eq!(of("r").0, DataType::Struct(vec![Field::new("at", utc_micros(), false)].into()));
        assert!(matches!(of("m").0, DataType::Map(_, false)));
        assert_eq!(of("x").0, DataType::FixedSizeBinary(4));
        assert_eq!(contract.doc(0), Some("a flag"));
        assert_eq!(contract.doc(1), None);
        assert!(contract.columns().fields().iter().all(|f| f.metadata().is_empty()));
    }

    #[test]
    fn the_fingerprint_is_avros_own() {
        // apache-avro keeps `{"type": "long"}` where the canonical form of a logical type is `"long"` (as in
        // Avro's Java reference), so the two meet on a schema without logical types.
        let fields = |at: &str| {
            format!(
                r#"{{"type":"record","name":"E","namespace":"t","doc":"x","fields":[{{"name":"at","type":{at},"doc":"y"}},
                    {{"name":"e","type":{{"type":"enum","name":"K","symbols":["A"]}}}},{{"name":"f","type":["null","K"]}}]}}"#
            )
        };
        let plain = fields(r#""long""#);
        let peer = Schema::parse_str(&plain).unwrap().fingerprint::<apache_avro::rabin::Rabin>();
        let contract = Contract::parse("e.v1", &plain).unwrap();
        assert_eq!(contract.fingerprint().to_le_bytes().as_slice(), peer.bytes.as_slice());
        let logical = fields(r#"{"type":"long","logicalType":"timestamp-micros"}"#);
        assert_eq!(Contract::parse("e.v1", &logical).unwrap().fingerprint(), contract.fingerprint());
    }

    #[test]
    fn what_no_column_can_hold_is_refused_with_field_and_hint() {
        let record = |fields: &str| format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
        let cases = [
            (record(r#"{"name":"x","type":["int","string"]}"#), r#"field "x": a union of several types"#),
            (record(r#"{"name":"x","type":"null"}"#), r#"field "x": a type that is only null"#),
            (record(r#"{"name":"x","type":{"type":"long","logicalType":"timestamp-nanos"}}"#), "timestamp-micros"),
            (
                record(
                    r#"{"name":"x","type":{"type":"array","items":{"type":"record","name":"R","fields":[{"name":"y","type":["null","R"]}]}}}"#,
                ),
                r#"field "x[].y": a reference to R"#,
            ),
            (record(r#"{"name":"_offset","type":"long"}"#), "reserved"),
            (record(""), "no fields"),
            (r#""long""#.into(), "not a record"),
            ("{".into(), "not JSON at 1:1"),
            (record(r#"{"name":"x","type":"strin"}"#), "not an Avro schema"),
        ];
        for (text, expected) in cases {
            let error = Contract::parse("e.v1", &text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("contract e.v1: "), "{text}\n{error}");
        }
    }
}
