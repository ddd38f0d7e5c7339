use std::path::Path as FsPath;

use arrow::array::{Array, LargeStringArray, TimestampMicrosecondArray, new_null_array};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::*;
use crate::source::{META_COLUMNS, OFFSET};

const CONTRACT: &str = r#"{"type": "record", "name": "P", "fields": [
  {"name": "id", "type": "long"},
  {"name": "kind", "type": "string", "default": "old"},
  {"name": "note", "type": ["null", "string"], "default": null},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;

fn judge() -> Judge {
    let contract = Arc::new(Contract::parse("p.v1", CONTRACT).unwrap());
    Judge { source: "pings".into(), contract, timestamp: "at".into(), max_future: 0 }
}

fn times(times: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
}

fn file(path: &FsPath, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// Ids from one on.
fn ids(path: &FsPath, first: i64, n: i64) {
    let id: ArrayRef = Arc::new((first..first + n).collect::<Int64Array>());
    let kind: ArrayRef = Arc::new(StringArray::from(vec!["new"; n as usize]));
    file(path, vec![("id", id), ("kind", kind), ("at", times((first..first + n).map(Some).collect()))]);
}

async fn open(location: &FsPath) -> Result<Arc<History>, OfflineError> {
    History::open(location.to_str().unwrap(), judge()).await.map(Arc::new)
}

async fn all(history: &Arc<History>, most: usize) -> Result<Vec<(i64, i64)>, OfflineError> {
    let (mut reader, mut from, mut read) = (HistoryReader::new(Arc::clone(history)), 0, vec![]);
    while let Some((events, next)) = reader.read(from, most).await? {
        assert!(events.num_rows() <= most && events.num_rows() > 0);
        let ids = events["id"].as_primitive::<Int64Type>().values();
        read.extend(events[OFFSET].as_primitive::<Int64Type>().values().iter().copied().zip(ids.iter().copied()));
        from = next;
    }
    assert!(from <= history.end());
    Ok(read)
}

#[test]
fn a_location_is_a_folder_and_what_its_files_are_called() {
    let place = |text: &str| {
        let place = Place::of(text);
        (place.folder.clone(), place.pattern.as_ref().map(|p| p.as_str().to_owned()), place.is_flat())
    };
    assert_eq!(place("s3://b/e/*.parquet"), ("s3://b/e/".into(), Some("*.parquet".into()), true));
    assert_eq!(place("s3://b/*/x?.parquet"), ("s3://b/".into(), Some("*/x?.parquet".into()), false));
    assert_eq!(place("s3://b/e"), ("s3://b/e/".into(), None, false));
    assert_eq!(place("s3://b/e/one.parquet"), ("s3://b/e/".into(), Some("one.parquet".into()), true));
    assert_eq!(place("file:///p/e/*"), ("/p/e/".into(), Some("*".into()), true));
    let holds = |location: &str, name: &str| Place::of(location).holds(name);
    assert!(holds("/e/*.parquet", "a.parquet") && !holds("/e/*.parquet", "a/b.parquet"));
    assert!(holds("/e/**/*.parquet", "a/b.parquet") && !holds("/e/*.parquet", ".a.parquet"));
    assert!(holds("/e", "a/b.parquet") && !holds("/e", "_delta_log/b.parquet") && !holds("/e", "a.csv"));
}

#[tokio::test]
async fn events_come_once_by_file_and_row_however_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    ids(&path("b.parquet"), 100, 20_000);
    ids(&path("a.parquet"), 0, 3);
    ids(&path("c.parquet"), 0, 0);
    // A file from before the contract had `kind`, with a narrower id, beside what is none of it.
    file(
        &path("d/old.parquet"),
        vec![
            ("note", new_null_array(&DataType::Null, 1)),
            ("noise", Arc::new(Float64Array::from(vec![0.5]))),
            ("id", Arc::new(Int32Array::from(vec![7]))),
            ("at", times(vec![Some(1)])),
        ],
    );
    let history = open(folder.path()).await.unwrap();
    let expected: Vec<(i64, i64)> = (0..3)
        .map(|row| (row, row))
        .chain((0..20_000).map(|row| ((1 << 32) | row, 100 + row)))
        .chain([(3 << 32, 7)])
        .collect();
    for most in [1_000, 8_192, 100_000] {
        assert_eq!(all(&history, most).await.unwrap(), expected);
    }
    let mut reader = HistoryReader::new(history.clone());
    let (events, next) = reader.read((1 << 32) | 19_998, 10).await.unwrap().unwrap();
    assert_eq!(
        (events["id"].as_primitive::<Int64Type>().values().to_vec(), next),
        (vec![20_098, 20_099], (1 << 32) | 20_000)
    );
    let (events, _) = reader.read(next, 10).await.unwrap().unwrap();
    assert_eq!(events["kind"].as_string::<i32>().value(0), "old");
    assert!(events["note"].is_null(0) && events["note"].data_type() == &DataType::Utf8);

    let archive = Arc::new(EmptyTable::new(event_schema(history.judge.contract.columns())));
    let table = HistoryTable { history: history.clone(), archive };
    let session = SessionContext::new();
    session.register_table("events", Arc::new(table) as Arc<dyn TableProvider>).unwrap();
    let rows = session
        .sql("SELECT _offset, id, _partition FROM events ORDER BY _offset")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let rows: Vec<(i64, i64)> = rows
        .iter()
        .flat_map(|rows| {
            let column = |i: usize| rows.column(i).as_primitive::<Int64Type>().values().to_vec();
            column(0).into_iter().zip(column(1)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(META_COLUMNS.len() + 4, history.schema.fields().len());
}

#[tokio::test]
async fn its_version_is_of_names_and_bytes_wherever_they_are() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&one, &other] {
        ids(&folder.path().join("a.parquet"), 0, 10);
    }
    let version = async |folder: &tempfile::TempDir, name: &str| {
        open(&folder.path().join(name)).await.unwrap().version().to_owned()
    };
    let first = version(&one, "").await;
    assert_eq!(first, version(&other, "*.parquet").await);
    ids(&other.path().join("b.parquet"), 0, 10);
    assert_ne!(first, version(&other, "").await);
    assert_eq!(first, version(&other, "a.parquet").await);
    // As long, and of the same age as far as that matters.
    ids(&one.path().join("a.parquet"), 1, 10);
    assert_ne!(first, version(&one, "").await);
}

#[tokio::test]
async fn what_is_no_history_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let said = |found: Result<Arc<History>, OfflineError>| found.unwrap_err().to_string();
    assert!(said(open(&path("nowhere/*.parquet")).await).contains("expected a folder of Parquet files"));
    let none = said(open(&path("*.parquet")).await);
    assert!(none.contains("history of source pings") && none.contains("no file there"), "{none}");
    let ok = |n: i64| -> ArrayRef { Arc::new((0..n).collect::<Int64Array>()) };
    let far = chrono::Utc::now().timestamp_micros() + 86_400_000_000;
    let cases: Vec<(Vec<(&str, ArrayRef)>, &str)> = vec![
        (vec![("id", ok(3)), ("at", times(vec![Some(1), None, Some(3)]))], "x.parquet, row 2: `at` is NULL"),
        (vec![("id", ok(2)), ("at", times(vec![Some(1), Some(far)]))], "x.parquet, row 2: `at` is "),
        (
            vec![("id", Arc::new(Int64Array::from(vec![None, Some(1)]))), ("at", times(vec![Some(1); 2]))],
            "x.parquet, row 1: `id` is NULL",
        ),
        (
            vec![("id", Arc::new(LargeStringArray::from(vec!["1"]))), ("at", times(vec![Some(1)]))],
            "x.parquet: source pings: an archived event has `id` as Utf8",
        ),
        (vec![("at", times(vec![Some(1)]))], "had the field `id`"),
    ];
    for (columns, wanted) in cases {
        file(&path("x.parquet"), columns);
        let error = all(&open(folder.path()).await.unwrap(), 10).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    std::fs::write(path("x.parquet"), "no Parquet at all").unwrap();
    let error = all(&open(folder.path()).await.unwrap(), 10).await.unwrap_err().to_string();
    assert!(error.contains("x.parquet: can't read"), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_or_vanishes_is_an_error_and_never_fewer_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    ids(&path, 0, 50_000);
    let history = open(folder.path()).await.unwrap();
    let mut reader = HistoryReader::new(history.clone());
    reader.read(0, 10).await.unwrap().unwrap();
    assert_eq!(reader.between(10, history.end()), 49_990, "it knows what it has opened");
    let table =
        || HistoryTable { history: history.clone(), archive: Arc::new(EmptyTable::new(history.schema.clone())) };
    let count = async || {
        let session = SessionContext::new();
        session.register_table("events", Arc::new(table())).unwrap();
        let rows = session.sql("SELECT count(id) FROM events").await.unwrap().collect().await;
        rows.map_err(|e| e.to_string())
    };
    count().await.unwrap();
    // Another file of the same name, as long as before.
    std::fs::remove_file(&path).unwrap();
    ids(&path, 0, 50_000);
    let error = all(&history, 1_000).await.unwrap_err().to_string();
    assert!(error.contains("a.parquet: can't read: the file was changed since it was listed"), "{error}");
    assert!(count().await.unwrap_err().contains("the file was changed"));
    std::fs::remove_file(&path).unwrap();
    let error = all(&history, 1_000).await.unwrap_err().to_string();
    assert!(error.contains("the file is gone since it was listed"), "{error}");
    assert!(count().await.unwrap_err().contains("the file is gone"));
}

/// Rows of an id and a time each, in row groups of ten; with what statistics the writer thinks best.
fn grouped(path: &FsPath, id: ArrayRef, at: Vec<Option<i64>>, statistics: EnabledStatistics) {
    let rows = RecordBatch::try_from_iter_with_nullable([("id", id, true), ("at", times(at), true)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10));
    let properties = properties.set_statistics_enabled(statistics).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// Rows, how many row groups were read and how many left out, and how many bytes were asked for.
type Read = (Vec<(i64, i64)>, (usize, usize), usize);

/// What a query gets that some tasks run.
async fn query(history: &Arc<History>, tasks: usize, columns: &str, filter: &str) -> Result<Read, String> {
    let archive = Arc::new(EmptyTable::new(history.schema.clone()));
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(tasks));
    session.register_table("events", Arc::new(HistoryTable { history: history.clone(), archive })).unwrap();
    let sql = format!("SELECT {columns} FROM events WHERE {filter} ORDER BY 1");
    let plan = session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    let rows = collect(plan.clone(), session.task_ctx()).await.map_err(|e| e.to_string())?;
    let of = |rows: &RecordBatch, i: usize| rows.column(i).as_primitive::<Int64Type>().values().to_vec();
    let rows = rows.iter().flat_map(|rows| of(rows, 0).into_iter().zip(of(rows, rows.num_columns() - 1)));
    let rows = rows.collect();
    let mut plan = plan;
    while plan.name() != HISTORY_EXEC {
        plan = Arc::clone(plan.children().first().expect("a scan of the history"));
    }
    let metrics = plan.metrics().unwrap();
    let groups = metrics.iter().filter_map(|metric| match metric.value() {
        MetricValue::PruningMetrics { pruning_metrics, .. } => {
            Some((pruning_metrics.matched(), pruning_metrics.pruned()))
        }
        _ => None,
    });
    let groups = groups.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    Ok((rows, groups, metrics.sum_by_name("bytes_scanned").unwrap().as_usize()))
}

#[tokio::test]
async fn row_groups_outside_of_the_time_asked_for_are_not_read_and_rows_keep_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![];
    let mut groups = vec![];
    for file in 0..3i64 {
        // In blocks of ten, so that some row groups reach further than others.
        let at = |row: i64| if row % 10 == 0 { row + 40 * (row / 10 % 3) } else { row } + 100 * file;
        let ats: Vec<i64> = (0..95).map(at).collect();
        all.extend((0..95).map(|row| ((file << 32) | row, ats[row as usize])));
        groups.extend(ats.chunks(10).map(|group| (*group.iter().min().unwrap(), *group.iter().max().unwrap())));
        let ids: ArrayRef = Arc::new((0..95).collect::<Int64Array>());
        let path = folder.path().join(format!("{file}.parquet"));
        grouped(&path, ids, ats.into_iter().map(Some).collect(), EnabledStatistics::Chunk);
    }
    let history = open(folder.path()).await.unwrap();
    let everything = query(&history, 1, "_offset, id", "true").await.unwrap();
    assert_eq!((everything.0.len(), everything.1), (all.len(), (groups.len(), 0)));
    for tasks in [1, 2, 3, 5, 16] {
        for (from, until) in [(0, 400), (-5, -1), (37, 37), (55, 130), (290, 999), (400, 500)] {
            let filter = |column: &str| {
                let at = |at: i64| format!("arrow_cast({at}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
                format!("{column} >= {} AND {column} <= {}", at(from), at(until))
            };
            let (rows, read, bytes) = query(&history, tasks, "_offset, id", &filter("at")).await.unwrap();
            let wanted = all.iter().filter(|(_, at)| (from..=until).contains(at));
            let wanted: Vec<(i64, i64)> = wanted.map(|(place, _)| (*place, place & 0xff)).collect();
            let place = format!("{tasks} tasks, {from} to {until}");
            assert_eq!(rows, wanted, "{place}");
            let needed = groups.iter().filter(|(first, last)| *first <= until && *last >= from).count();
            assert_eq!(read, (needed, groups.len() - needed), "{place}");
            assert!(needed > groups.len() / 2 || tasks > 1 || bytes < everything.2 * 3 / 4, "{place}: {bytes} bytes");
            // What came with an event is as old as it, but statistics are only of its own time.
            let (rows, read, _) = query(&history, tasks, "_offset, id", &filter("_ingested_at")).await.unwrap();
            assert_eq!((rows, read.1), (wanted, 0), "{place}");
        }
    }
}

#[tokio::test]
async fn what_is_no_event_is_refused_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let far = chrono::Utc::now().timestamp_micros() + 86_400_000_000;
    let ids = || -> Vec<Option<i64>> { (0..50).map(Some).collect() };
    let with = |mut all: Vec<Option<i64>>, row: usize, value: Option<i64>| {
        all[row] = value;
        all
    };
    let asked = "at >= arrow_cast(5, 'Timestamp(Microsecond, Some(\"UTC\"))') AND at <= arrow_cast(12, 'Timestamp(Microsecond, Some(\"UTC\"))')";
    for (id, at, wanted) in [
        (ids(), with(ids(), 33, None), "x.parquet, row 34: `at` is NULL"),
        (ids(), with(ids(), 44, Some(far)), "x.parquet, row 45: `at` is "),
        // Of a column that isn't asked for, as well.
        (with(ids(), 21, None), ids(), "x.parquet, row 22: `id` is NULL"),
    ] {
        for statistics in [EnabledStatistics::Chunk, EnabledStatistics::None] {
            grouped(&path, Arc::new(Int64Array::from(id.clone())), at.clone(), statistics);
            let history = open(folder.path()).await.unwrap();
            let filled = all(&history, 10).await.unwrap_err().to_string();
            assert!(filled.contains(wanted), "{wanted}: {filled}");
            for columns in ["_offset, id", "_offset"] {
                let error = query(&history, 2, columns, asked).await.unwrap_err();
                assert!(error.contains(&filled), "{filled}: {error}");
            }
        }
    }
    grouped(&path, Arc::new(Int64Array::from(ids())), ids(), EnabledStatistics::Chunk);
    let history = open(folder.path()).await.unwrap();
    assert_eq!(query(&history, 2, "_offset, id", asked).await.unwrap().1, (2, 3));
    // Nothing is known of any: all are read.
    grouped(&path, Arc::new(Int64Array::from(ids())), ids(), EnabledStatistics::None);
    let history = open(folder.path()).await.unwrap();
    let (rows, read, _) = query(&history, 2, "_offset, id", asked).await.unwrap();
    assert_eq!((rows.len(), read), (8, (5, 0)));
    // A column that nobody asks for, and that is none of the contract's: a fill would say so, and so does this.
    let id: ArrayRef = Arc::new(LargeStringArray::from(vec!["1"; 50]));
    grouped(&path, id, ids(), EnabledStatistics::Chunk);
    let history = open(folder.path()).await.unwrap();
    let error = query(&history, 2, "_offset", asked).await.unwrap_err();
    assert!(error.contains("an archived event has `id` as Utf8"), "{error}");
}
