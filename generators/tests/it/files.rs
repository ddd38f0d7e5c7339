//! Histories read back from their files.

use std::fs::{self, File};
use std::path::Path;

use apache_avro::types::Value;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use tidemark_generators::{
    Click, Config, Event, Format, Progress, Record, Summary, Transaction, World, clicks_batch, labels_batch,
    merchants_batch, transactions_batch, write_history,
};

use crate::contracts::plain;
use crate::{DAY, HOUR, START};

const FROM: i64 = START + 5 * HOUR;
const TO: i64 = START + 2 * DAY + HOUR;
const DAYS: [&str; 3] = ["2026-01-01", "2026-01-02", "2026-01-03"];

fn world() -> World {
    World::new(Config { transactions_per_day: 9_500.0, duplicates: 0.02, ..Config::default() }).unwrap()
}

fn write(out: &Path, format: Format) -> (Summary, Vec<Progress>) {
    let mut steps = Vec::new();
    let summary = write_history(&world(), FROM, TO, out, format, |step| steps.push(step)).unwrap();
    (summary, steps)
}

fn day(day: usize) -> Vec<Event> {
    let start = START + day as i64 * DAY;
    world().events(start.max(FROM), (start + DAY).min(TO)).collect()
}

fn transactions(events: &[Event]) -> Vec<Transaction> {
    let of = |event: &Event| match &event.record {
        Record::Transaction(transaction) => Some(transaction.clone()),
        Record::Click(_) => None,
    };
    events.iter().filter_map(of).collect()
}

fn clicks(events: &[Event]) -> Vec<Click> {
    let of = |event: &Event| match &event.record {
        Record::Transaction(_) => None,
        Record::Click(click) => Some(click.clone()),
    };
    events.iter().filter_map(of).collect()
}

fn read_parquet(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

#[test]
fn parquet_reads_back_equal() {
    let out = tempfile::tempdir().unwrap();
    let (summary, steps) = write(out.path(), Format::Parquet);
    let (mut rows, mut click_rows) = (0, 0);
    for (number, date) in DAYS.iter().enumerate() {
        let events = day(number);
        let (expected, expected_clicks) = (transactions(&events), clicks(&events));
        (rows, click_rows) = (rows + expected.len() as u64, click_rows + expected_clicks.len() as u64);
        let batch = read_parquet(&out.path().join(format!("transactions/{date}.parquet")));
        assert_eq!(batch, transactions_batch(&expected).unwrap());
        let time = batch.schema().field_with_name("event_time").unwrap().data_type().clone();
        assert_eq!(time, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        assert_eq!(
            read_parquet(&out.path().join(format!("clicks/{date}.parquet"))),
            clicks_batch(&expected_clicks).unwrap()
        );
    }
    assert!(rows > 8_192 * 2 && click_rows > 8_192, "more than a chunk: {rows} and {click_rows}");
    assert_eq!((summary.transactions, summary.clicks), (rows, click_rows));
    assert_eq!(summary.files.len(), 8);
    assert_eq!(
        steps,
        [1, 2, 3].map(|done| Progress { days_done: done, days: 3, events: steps[done as usize - 1].events })
    );
    assert_eq!(steps[2].events, rows + click_rows);
}

#[test]
fn tables_hold_each_merchant_and_each_transaction_once() {
    let out = tempfile::tempdir().unwrap();
    let (summary, _) = write(out.path(), Format::Avro);
    assert_eq!(read_parquet(&out.path().join("merchants.parquet")), merchants_batch(&world()).unwrap());
    assert_eq!(summary.merchants, 300);

    let first: Vec<Event> = world().events(FROM, TO).filter(|event| !event.duplicate).collect();
    let labels = read_parquet(&out.path().join("labels.parquet"));
    assert_eq!(labels, labels_batch(&transactions(&first)).unwrap());
    assert_eq!(summary.labels, labels.num_rows() as u64);
    assert_eq!(summary.frauds, labels.column_by_name("is_fraud").unwrap().as_boolean().true_count() as u64);
    assert!(summary.frauds > 0);
    assert_eq!(summary.duplicates, summary.transactions + summary.clicks - first.len() as u64);
    assert!(summary.duplicates > 0);
}

#[test]
fn avro_and_ndjson_read_back_equal() {
    let (avro, text) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (summary, _) = write(avro.path(), Format::Avro);
    assert_eq!(
        (summary.transactions, summary.labels),
        (write(text.path(), Format::NdJson).0.transactions, summary.labels)
    );
    for (number, date) in DAYS.iter().enumerate() {
        let events = day(number);
        for stream in ["transactions", "clicks"] {
            let expected: Vec<_> =
                events.iter().filter(|event| event.source() == stream).map(|event| event.to_json().unwrap()).collect();

            let lines = fs::read_to_string(text.path().join(format!("{stream}/{date}.ndjson"))).unwrap();
            let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(rows == expected, "{stream} of {date} as NDJSON");

            let file = File::open(avro.path().join(format!("{stream}/{date}.avro"))).unwrap();
            let object = |value| match value {
                Value::Record(fields) => fields.into_iter().map(|(name, value)| (name, plain(value))).collect(),
                other => panic!("not a record: {other:?}"),
            };
            let rows: Vec<serde_json::Value> =
                apache_avro::Reader::new(file).unwrap().map(|value| object(value.unwrap())).collect();
            assert!(rows == expected, "{stream} of {date} as Avro");
        }
    }
}

#[test]
fn writing_again_gives_the_same_bytes_and_leaves_no_drafts() {
    // Avro containers have a random marker: their rows are compared above.
    for format in [Format::Parquet, Format::NdJson] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), format);
        let (summary, _) = write(one.path(), format);
        write(two.path(), format);
        for file in &summary.files {
            let name = file.strip_prefix(one.path()).unwrap();
            assert!(fs::read(file).unwrap() == fs::read(two.path().join(name)).unwrap(), "{} differs", name.display());
        }
        for stream in ["transactions", "clicks"] {
            assert_eq!(fs::read_dir(one.path().join(stream)).unwrap().count(), 3);
        }
    }
}

#[test]
fn a_day_without_events_is_an_empty_file_with_a_schema() {
    let out = tempfile::tempdir().unwrap();
    let world = World::new(Config { clicks_per_day: 0.0, transactions_per_day: 0.0, ..Config::default() }).unwrap();
    for format in [Format::Parquet, Format::Avro, Format::NdJson] {
        let summary = write_history(&world, START, START + DAY, out.path(), format, |_| {}).unwrap();
        assert_eq!((summary.transactions, summary.clicks, summary.labels), (0, 0, 0));
    }
    let empty = read_parquet(&out.path().join("clicks/2026-01-01.parquet"));
    assert_eq!(empty, clicks_batch(&[]).unwrap());
    let avro = File::open(out.path().join("clicks/2026-01-01.avro")).unwrap();
    assert_eq!(apache_avro::Reader::new(avro).unwrap().count(), 0);
}

#[test]
fn errors_say_what_where_and_what_was_expected() {
    let out = tempfile::tempdir().unwrap();
    let error = |from, to, path: &Path| {
        write_history(&world(), from, to, path, Format::Parquet, |_| {}).unwrap_err().to_string()
    };
    let message = error(TO, FROM, out.path());
    assert!(message.contains("end at 2026-01-01T05:00:00.000000Z but starts at 2026-01-03T01:00:00"), "{message}");
    let message = error(START, i64::MAX, out.path());
    assert!(message.contains("9223372036854775807"), "{message}");
    fs::write(out.path().join("plain"), "a file, not a folder").unwrap();
    let message = error(FROM, TO, &out.path().join("plain"));
    assert!(message.contains("plain/transactions"), "{message}");
    assert_eq!("ndjson".parse::<Format>().unwrap(), Format::NdJson);
    assert_eq!(
        json!("csv".parse::<Format>().unwrap_err().to_string()),
        "unknown format 'csv', expected one of 'parquet', 'avro', 'ndjson'"
    );
}
