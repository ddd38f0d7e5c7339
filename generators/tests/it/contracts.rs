//! Every event is what its contract says, in Avro and in JSON.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Schema, schema::RecordField};
use arrow::datatypes::{DataType, TimeUnit};
use tidemark_generators::{
    CLICKS, Config, Encoder, World, clicks_batch, clicks_schema, labels_batch, merchants_batch, transactions_batch,
    transactions_schema,
};

use crate::{DAY, START};

fn fields(schema: &Schema) -> &[RecordField] {
    match schema {
        Schema::Record(record) => &record.fields,
        other => panic!("not a record: {other:?}"),
    }
}

#[test]
fn every_field_is_described_and_event_time_is_an_instant() {
    for schema in [transactions_schema().unwrap(), clicks_schema().unwrap()] {
        assert_eq!(schema.namespace().map(|namespace| namespace.to_string()).as_deref(), Some("dev.tidemark"));
        for field in fields(schema) {
            assert!(field.doc.as_deref().is_some_and(|doc| doc.ends_with('.')), "{} has no doc", field.name);
        }
        let time = fields(schema).iter().find(|field| field.name == "event_time").unwrap();
        assert!(matches!(time.schema, Schema::TimestampMicros));
    }
}

#[test]
fn batches_have_the_contracts_columns() {
    let pairs = [(transactions_batch(&[]), transactions_schema()), (clicks_batch(&[]), clicks_schema())];
    for (batch, contract) in pairs {
        let nullable = |schema: &Schema| matches!(schema, Schema::Union(_));
        let expected: Vec<(&str, bool)> =
            fields(contract.unwrap()).iter().map(|field| (field.name.as_str(), nullable(&field.schema))).collect();
        let schema = batch.unwrap().schema();
        let columns: Vec<(&str, bool)> =
            schema.fields().iter().map(|field| (field.name().as_str(), field.is_nullable())).collect();
        assert_eq!(columns, expected);
    }
}

/// The shipped tables are declared, not inferred: they must stay what the generator writes.
#[test]
fn shipped_tables_declare_what_the_generator_writes() {
    let world = World::new(Config::default()).unwrap();
    let pairs = [
        (merchants_batch(&world), include_str!("../../../features/tables/merchants.sql")),
        (labels_batch(&[]), include_str!("../../../features/tables/labels.sql")),
    ];
    for (batch, sql) in pairs {
        let declared: Vec<(&str, &str)> = sql
            .lines()
            .filter_map(|line| line.trim_end_matches(',').strip_prefix("  ")?.split_once(' '))
            .filter(|(name, _)| *name != "--")
            .map(|(name, kind)| (name, kind.trim()))
            .collect();
        let schema = batch.unwrap().schema();
        let written: Vec<(&str, &str)> = schema
            .fields()
            .iter()
            .map(|field| {
                assert!(!field.is_nullable());
                let kind = match field.data_type() {
                    DataType::Int64 => "BIGINT NOT NULL",
                    DataType::Float64 => "DOUBLE NOT NULL",
                    DataType::Utf8 => "VARCHAR NOT NULL",
                    DataType::Boolean => "BOOLEAN NOT NULL",
                    DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMP(6) WITH TIME ZONE NOT NULL",
                    other => panic!("unexpected {other}"),
                };
                (field.name().as_str(), kind)
            })
            .collect();
        assert_eq!(declared, written);
    }
}

#[test]
fn every_event_survives_encoding_by_its_contract() {
    let world = World::new(Config { duplicates: 0.01, ..Config::default() }).unwrap();
    let encoder = Encoder::new().unwrap();
    let readers = [transactions_schema(), clicks_schema()]
        .map(|schema| GenericDatumReader::builder(schema.unwrap()).build().unwrap());
    let mut bytes = Vec::new();
    let mut seen = [0, 0];
    for event in world.events(START, START + DAY) {
        bytes.clear();
        bytes.extend(b"head");
        encoder.encode(&event.record, &mut bytes).unwrap();
        let mut rest = bytes.strip_prefix(b"head").unwrap();
        let stream = usize::from(event.source() == CLICKS);
        let Value::Record(decoded) = readers[stream].read_value(&mut rest).unwrap() else { panic!("not a record") };
        assert!(rest.is_empty(), "{} bytes left over", rest.len());
        seen[stream] += 1;

        let json = event.to_json().unwrap();
        assert_eq!(json.as_object().unwrap().len(), decoded.len());
        for (name, value) in decoded {
            assert_eq!(plain(value), json[&name], "{name} of {event:?}");
        }
    }
    assert!(seen[0] > 2_000 && seen[1] > 3_000, "{seen:?}");
}

/// A decoded value as JSON shows it.
pub fn plain(value: Value) -> serde_json::Value {
    match value {
        Value::Union(_, value) => plain(*value),
        Value::TimestampMicros(micros) => chrono::DateTime::from_timestamp_micros(micros)
            .unwrap()
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
            .into(),
        Value::Null => serde_json::Value::Null,
        Value::String(text) => text.into(),
        Value::Long(number) => number.into(),
        Value::Int(number) => number.into(),
        Value::Double(number) => number.into(),
        other => panic!("unexpected {other:?}"),
    }
}
