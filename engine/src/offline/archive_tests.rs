use arrow::array::{Float64Array, Int32Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::prelude::SessionContext;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use std::ops::RangeInclusive;

use super::super::archive_files::{archived_ends, list_archive, ranges};
use super::super::{ArchiveReader, archive_table};
use super::*;
use crate::source::{Contract, event_schema};

const DAY: i64 = 86_400_000_000;

fn schema() -> SchemaRef {
    event_schema(&Schema::new(vec![Field::new("amount", DataType::Float64, true)]))
}

fn contract(fields: &str) -> Arc<Contract> {
    let json = format!(r#"{{"type":"record","name":"T","fields":[{fields}]}}"#);
    Arc::new(Contract::parse("t.v1", &json).unwrap())
}

fn amounts() -> Arc<Contract> {
    contract(r#"{"name":"amount","type":["null","double"]}"#)
}

/// Events at the given offsets; a day has a hundred of them.
fn events(partition: i32, offsets: impl IntoIterator<Item = i64>) -> RecordBatch {
    let offsets: Vec<i64> = offsets.into_iter().collect();
    let times: TimestampMicrosecondArray = offsets.iter().map(|o| Some(o / 100 * DAY)).collect();
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(offsets.iter().map(|o| Some(*o as f64 / 3.0)).collect::<Float64Array>()),
            Arc::new(Int32Array::from(vec![partition; offsets.len()])),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(times.with_timezone("UTC")),
        ],
    )
    .unwrap()
}

async fn writer(dir: &tempfile::TempDir, rows_per_file: usize) -> ArchiveWriter {
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    ArchiveWriter::open(storage, "t", schema(), rows_per_file).await.unwrap()
}

async fn archived_ranges(storage: &Storage) -> Result<BTreeMap<i32, RangeInclusive<i64>>, OfflineError> {
    ranges(storage, &list_archive(storage, "t").await?).await
}

async fn query(dir: &tempfile::TempDir, contract: Arc<Contract>, sql: &str) -> Vec<RecordBatch> {
    try_query(dir, contract, sql).await.unwrap()
}

async fn try_query(
    dir: &tempfile::TempDir,
    contract: Arc<Contract>,
    sql: &str,
) -> datafusion::error::Result<Vec<RecordBatch>> {
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let context = crate::batch::session();
    let table = archive_table(&storage, "t", &contract).await.unwrap().table;
    context.register_table("archive", table).unwrap();
    context.sql(sql).await?.collect().await
}

async fn offsets(dir: &tempfile::TempDir, partition: i32) -> Vec<i64> {
    let sql = format!("SELECT _offset FROM archive WHERE _partition = {partition} ORDER BY _offset");
    let batches = query(dir, amounts(), &sql).await;
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn files_are_named_by_their_first_event_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(offsets(&dir, 0).await, Vec::<i64>::new());
    let mut archive = writer(&dir, 100).await;
    archive.append(0, &events(0, 40..95), 95).await.unwrap();
    assert_eq!((archive.pending_rows(), archive.durable()[&0]), (55, 0));
    archive.append(0, &events(0, 95..345), 350).await.unwrap();
    assert_eq!((archive.pending_rows(), archive.durable()[&0]), (305, 0));
    archive.append(3, &events(3, [7, 9]), 12).await.unwrap();
    archive.append(4, &events(4, []), 6).await.unwrap();
    assert_eq!(archive.flush().await.unwrap(), BTreeMap::from([(0, 350), (3, 12), (4, 6)]));
    for file in [
        "ingest_date=1970-01-01/0-0000000000000000040.parquet",
        "ingest_date=1970-01-02/0-0000000000000000140.parquet",
        "ingest_date=1970-01-03/0-0000000000000000240.parquet",
        "ingest_date=1970-01-04/0-0000000000000000340.parquet",
        "ingest_date=1970-01-01/3-0000000000000000007.parquet",
    ] {
        assert!(dir.path().join("archive/t").join(file).exists(), "{file}");
    }
    assert_eq!(offsets(&dir, 0).await, (40..345).collect::<Vec<_>>());
    assert_eq!(offsets(&dir, 3).await, [7, 9]);
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    assert_eq!(archived_ranges(&storage).await.unwrap(), BTreeMap::from([(0, 40..=344), (3, 7..=9)]));
    let sql = "SELECT * FROM archive WHERE _ingested_at >= '1970-01-04T00:00:00Z' ORDER BY _offset";
    let batches = query(&dir, amounts(), sql).await;
    let found = arrow::compute::concat_batches(&schema(), &batches).unwrap();
    assert_eq!(found, events(0, 300..345));
}

#[tokio::test]
async fn what_was_refused_at_the_end_is_remembered_as_long_as_the_files_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut archive = writer(&dir, 100).await;
    archive.append(0, &events(0, 0..5), 5).await.unwrap();
    archive.flush().await.unwrap();
    archive.append(0, &events(0, 5..7), 9).await.unwrap();
    archive.append(1, &events(1, []), 3).await.unwrap();
    archive.flush().await.unwrap();
    archive.append(0, &events(0, []), 12).await.unwrap();
    let expected = BTreeMap::from([(0, 12), (1, 3)]);
    assert_eq!(archive.flush().await.unwrap(), expected);
    let mut again = writer(&dir, 100).await;
    assert_eq!((again.durable(), archived_ends(&storage, "t").await.unwrap()), (expected.clone(), expected.clone()));
    again.adopt(&[0, 1, 2]).await.unwrap();
    assert_eq!(again.durable(), BTreeMap::from([(0, 12), (1, 3), (2, 0)]));
    let mut past = ArchiveReader::open(storage.clone(), "t", &amounts()).await.unwrap();
    assert_eq!((past.end(0), past.end(1), past.end(2)), (12, 3, 0));
    assert_eq!(past.read(0, 6, 10).await.unwrap().unwrap().num_rows(), 1);
    assert_eq!((past.read(0, 7, 10).await.unwrap(), past.read(1, 0, 10).await.unwrap()), (None, None));
    // Under another contract they may be no worse than others. They were refused.
    again.append(0, &events(0, 5..14), 14).await.unwrap();
    again.flush().await.unwrap();
    assert_eq!(offsets(&dir, 0).await, [0, 1, 2, 3, 4, 5, 6, 12, 13]);
    // What stood behind a file says nothing of what was in it.
    again.append(0, &events(0, []), 20).await.unwrap();
    again.flush().await.unwrap();
    assert_eq!(writer(&dir, 100).await.durable()[&0], 20);
    std::fs::remove_file(dir.path().join("archive/t/ingest_date=1970-01-01/0-0000000000000000012.parquet")).unwrap();
    assert_eq!(writer(&dir, 100).await.durable()[&0], 7);
    past.refresh().await.unwrap();
    assert_eq!(past.end(0), 7);
}

#[tokio::test]
async fn a_replay_from_anywhere_with_other_cuts_duplicates_and_loses_nothing() {
    for seed in 0..8u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut committed = 0;
        // Each round is a process: it starts where the last one committed, or before, and ends at any point.
        for _ in 0..6 {
            let mut archive = writer(&dir, rng.random_range(1..60)).await;
            let mut at = rng.random_range(0..=committed);
            for _ in 0..rng.random_range(0..8) {
                let next = (at + rng.random_range(0..50)).min(500);
                // Every seventh offset was refused: the archive has gaps.
                archive.append(0, &events(0, (at..next).filter(|o| o % 7 != 0)), next).await.unwrap();
                at = next;
                if rng.random_bool(0.4) {
                    let durable = archive.flush().await.unwrap()[&0];
                    committed = durable.min(at).max(committed);
                    if rng.random_bool(0.3) {
                        committed -= rng.random_range(0..=committed.min(20)); // the online side was behind
                    }
                }
            }
        }
        let mut archive = writer(&dir, 64).await;
        archive.append(0, &events(0, (committed..500).filter(|o| o % 7 != 0)), 500).await.unwrap();
        assert_eq!(archive.flush().await.unwrap()[&0], 500, "seed {seed}");
        assert_eq!(offsets(&dir, 0).await, (0..500).filter(|o| o % 7 != 0).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// The rules by which a replay of the same events reads them.
#[tokio::test]
async fn old_files_are_read_under_the_contract_of_today() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = writer(&dir, 100).await;
    archive.append(0, &events(0, 0..3), 3).await.unwrap();
    archive.flush().await.unwrap();
    let grown = r#"{"name":"ch","type":"string","default":"web"},
        {"name":"total","type":["null","double"],"aliases":["amount"]},
        {"name":"country","type":["null","string"],"default":null}"#;
    let batches = query(&dir, contract(grown), "SELECT ch, country, total FROM archive WHERE ch = 'web'").await;
    let found = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!((found.num_rows(), found["country"].null_count()), (3, 3));
    assert!(found["ch"].as_string::<i32>().iter().all(|ch| ch == Some("web")));
    assert_eq!(found["total"].as_primitive::<Float64Type>().value(2), 2.0 / 3.0);

    let bare = r#"{"name":"ch","type":"string"},{"name":"amount","type":["null","double"]}"#;
    let batches = query(&dir, contract(bare), "SELECT amount FROM archive").await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3, "nobody asks for the new field");
    let error = try_query(&dir, contract(bare), "SELECT ch FROM archive").await.unwrap_err().to_string();
    assert!(
        error.contains("source t:") && error.contains("`ch`") && error.contains("hint: add \"default\""),
        "{error}"
    );
    let text = r#"{"name":"amount","type":"string"}"#;
    let error = try_query(&dir, contract(text), "SELECT amount FROM archive").await.unwrap_err().to_string();
    assert!(error.contains("has `amount` as Float64") && error.contains("hint:"), "{error}");
}

#[tokio::test]
async fn a_promoted_type_is_cast() {
    let dir = tempfile::tempdir().unwrap();
    let old = event_schema(&Schema::new(vec![Field::new("n", DataType::Int32, false)]));
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut archive = ArchiveWriter::open(storage, "t", old.clone(), 100).await.unwrap();
    let mut columns = events(0, 0..3).columns().to_vec();
    columns[0] = Arc::new(Int32Array::from(vec![1, 2, 3]));
    archive.append(0, &RecordBatch::try_new(old, columns).unwrap(), 3).await.unwrap();
    archive.flush().await.unwrap();
    let wide = contract(r#"{"name":"n","type":"double"}"#);
    let batches = query(&dir, wide, "SELECT n FROM archive ORDER BY n").await;
    assert_eq!(batches[0].column(0).as_primitive::<Float64Type>().values().to_vec(), [1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn a_table_is_the_archive_of_its_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = writer(&dir, 10).await;
    archive.append(0, &events(0, 0..10), 10).await.unwrap();
    archive.flush().await.unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let context = SessionContext::new();
    let count = async |sql: &str| {
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    };
    context.register_table("first", archive_table(&storage, "t", &amounts()).await.unwrap().table).unwrap();
    assert_eq!(count("SELECT COUNT(*) FROM first").await, 10);
    archive.append(0, &events(0, 10..20), 20).await.unwrap();
    archive.flush().await.unwrap();
    context.register_table("second", archive_table(&storage, "t", &amounts()).await.unwrap().table).unwrap();
    assert_eq!(count("SELECT COUNT(*) FROM first").await, 10);
    assert_eq!(count("SELECT COUNT(*) FROM second").await, 20);
}

#[tokio::test]
async fn what_does_not_belong_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = writer(&dir, 10).await;
    let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("x", DataType::Int8, false)])));
    let error = archive.append(0, &other, 1).await.unwrap_err().to_string();
    assert!(error.contains("archive of t: events with columns"), "{error}");
    archive.append(0, &events(0, 0..10), 10).await.unwrap();
    archive.flush().await.unwrap();
    let file = dir.path().join("archive/t/ingest_date=1970-01-01/0-0000000000000000099.parquet");
    std::fs::write(&file, b"PAR1 not parquet").unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let error = archived_ranges(&storage).await.unwrap_err().to_string();
    assert!(error.contains("0-0000000000000000099.parquet: can't read its footer"), "{error}");
    std::fs::rename(&file, file.with_file_name("mine.parquet")).unwrap();
    let error = archived_ranges(&storage).await.unwrap_err().to_string();
    assert!(error.contains("not a file that Tidemark wrote"), "{error}");
}

/// Statistics of doubles leave NaN out, and readers take a column whose least and greatest number agree for a constant.
#[tokio::test]
async fn a_nan_beside_one_number_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = writer(&dir, 100).await;
    let mut columns = events(0, 0..2).columns().to_vec();
    columns[0] = Arc::new(Float64Array::from(vec![970.69, f64::NAN]));
    archive.append(0, &RecordBatch::try_new(schema(), columns).unwrap(), 2).await.unwrap();
    archive.flush().await.unwrap();
    for (sql, expected) in [
        ("SELECT amount FROM archive ORDER BY _offset", vec![970.69, f64::NAN]),
        // NaN sorts above every number.
        ("SELECT amount FROM archive WHERE amount > 1000", vec![f64::NAN]),
    ] {
        let batches = query(&dir, amounts(), sql).await;
        let read: Vec<u64> = batches
            .iter()
            .flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec())
            .map(f64::to_bits)
            .collect();
        assert_eq!(read, expected.into_iter().map(f64::to_bits).collect::<Vec<_>>(), "{sql}");
    }
}

#[tokio::test]
async fn the_past_is_read_by_offset_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = writer(&dir, 100).await;
    let held = |range: std::ops::Range<i64>| range.filter(|o| o % 7 != 0);
    archive.append(0, &events(0, held(40..345)), 350).await.unwrap();
    archive.append(2, &events(2, held(0..5)), 5).await.unwrap();
    archive.flush().await.unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut reader = ArchiveReader::open(storage, "t", &amounts()).await.unwrap();
    assert_eq!((reader.end(0), reader.end(1), reader.end(2)), (350, 0, 5));
    assert!(reader.read(1, 0, 10).await.unwrap().is_none());
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..200 {
        let (mut from, most) = (rng.random_range(0..345), rng.random_range(1..90));
        // On and on for a while, then from somewhere else.
        for _ in 0..rng.random_range(1..5) {
            let expected: Vec<i64> = held(from.max(40)..345).take(most).collect();
            let read = reader.read(0, from, most).await.unwrap();
            let read: Vec<i64> =
                read.iter().flat_map(|b| b[OFFSET].as_primitive::<Int64Type>().values().to_vec()).collect();
            assert!(!read.is_empty() || expected.is_empty(), "from {from}");
            assert_eq!(read, expected[..read.len()], "from {from}, at most {most}");
            let Some(last) = read.last() else { break };
            from = last + 1;
        }
    }
}
