//! A store that fails now and then, in the middle of batches of several partitions: nothing is lost, nothing comes twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Int32Type, Int64Type};
use async_trait::async_trait;
use serde_json::json;

use super::super::StreamError;
use super::super::worker::Owned;
use super::super::{Past, Progress, Until, Worker, WorkerConfig};
use crate::metrics::Metrics;
use crate::offline::{ArchiveReader, ArchiveWriter, DeadLetterWriter, Storage, dead_letters};
use crate::online::conformance::{Hook, Hooked};
use crate::online::{EmbeddedStore, StoreError};
use crate::plan::Project;
use crate::request::Reader;
use crate::source::{Contract, Encoder, EventLog, EventSource as _, LogSource, OFFSET, PARTITION, event_schema};

const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"}, {"name": "x", "type": "long"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
const DEFINITIONS: &str = "
CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at');
CREATE FEATURE VIEW counts AS SELECT k, COUNT(*) OVER w AS n, SUM(x) OVER w AS s FROM e
WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW shares AS SELECT k, SUM(60 / x) OVER w AS s FROM e
WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);";
const EVENTS: i64 = 200;
const PARTITIONS: i32 = 3;
const KEYS: i64 = 5;

/// Of so many writes about one fails, before it took anything; 0 for none.
#[derive(Debug)]
struct Flaky {
    writes: AtomicU64,
    failed: AtomicU64,
    every: u64,
    with: fn() -> StoreError,
}

fn passing() -> StoreError {
    StoreError::Storage { path: "flaky".into(), what: "can't write", cause: "now".to_owned() }
}

fn lost() -> StoreError {
    StoreError::SessionEnded { at: "flaky".to_owned() }
}

#[async_trait]
impl Hook for Flaky {
    async fn write(&self) -> Result<(), StoreError> {
        let write = self.writes.fetch_add(1, Ordering::SeqCst);
        // By no rhythm: who tries the same again would fail at the same place.
        let dice = (write + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        match self.every > 0 && dice.is_multiple_of(self.every) {
            true => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                Err((self.with)())
            }
            false => Ok(()),
        }
    }
}

/// What a stream leaves behind: values, archived places, dead letters.
type Left = (Vec<String>, Vec<(i32, i64)>, Vec<(i32, i64, String)>);

/// `stops`: what fails is followed by a stop, and another worker.
async fn stream(
    folder: &Path,
    (every, with): (u64, fn() -> StoreError),
    max_records: usize,
    stops: bool,
) -> (Left, u64) {
    for (path, text) in [("schemas/e.v1.avsc", CONTRACT), ("features/e.sql", DEFINITIONS)] {
        std::fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        std::fs::write(folder.join(path), text).unwrap();
    }
    let project = Project::load(folder, &folder.join("features")).await.unwrap();
    let contract = project.sources["e"].contract.clone().unwrap();
    let log = Arc::new(EventLog::open(folder.join("log.redb")).unwrap());
    let encoder = Encoder::new(contract.clone());
    for partition in 0..PARTITIONS {
        let event = |i: i64| match i % 17 {
            3 => bytes::Bytes::from_static(b"not an event"),
            // One in eight divides by zero.
            _ => encoder.encode(&json!({"k": i % KEYS, "x": i % 8, "at": i * 1_000_000})).unwrap(),
        };
        log.append("e", partition, (0..EVENTS).map(|i| (i * 1_000_000, event(i))).collect()).await.unwrap();
    }
    let storage = Storage::open(&folder.join("offline").to_string_lossy()).unwrap();
    let schema = event_schema(&project.sources["e"].schema);
    let embedded = EmbeddedStore::open(folder.join("store.redb")).unwrap();
    let hook = Flaky { writes: AtomicU64::new(0), failed: AtomicU64::new(0), every, with };
    let store = Arc::new(Hooked { store: Arc::new(embedded.clone()), hook });
    let begin = async || {
        Worker::new(
            Box::new(LogSource::new("e", log.clone(), contract.clone(), None).unwrap()),
            project.views_of("e"),
            store.clone(),
            (
                Some(ArchiveWriter::open(storage.clone(), "e", schema.clone(), 70).await.unwrap()),
                Past::Archive { storage: storage.clone(), contract: contract.clone(), history: None },
            ),
            Box::new(DeadLetterWriter::open(storage.clone(), "e").await.unwrap()),
            (Arc::new(Progress::default()), Metrics::new().unwrap()),
            WorkerConfig { max_records, commit_events: 150, ..WorkerConfig::default() },
        )
    };
    let mut worker = begin().await;
    let summary = loop {
        match worker.run(Until::End).await {
            Ok(summary) => break summary,
            Err(error) => {
                assert!(error.to_string().contains("flaky"), "{error}");
                if stops {
                    worker.commit().await.unwrap();
                    worker = begin().await;
                }
            }
        }
    };
    let mut values = vec![];
    let reader = Reader::new(Arc::new(embedded));
    for view in project.views.values() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS));
        let answer = reader.view(view, &[keys], &[(EVENTS + 60) * 1_000_000; KEYS as usize]).await.unwrap();
        values.extend(answer.values.columns().iter().map(|column| format!("{} {column:?}", view.name)));
    }
    let mut archive = ArchiveReader::open(storage.clone(), "e", &contract).await.unwrap();
    let mut places = vec![];
    for partition in 0..PARTITIONS {
        let mut from = 0;
        while let Some(rows) = archive.read(partition, from, 1000).await.unwrap().filter(|rows| rows.num_rows() > 0) {
            let offsets = rows[OFFSET].as_primitive::<Int64Type>().values();
            places.extend(
                rows[PARTITION].as_primitive::<Int32Type>().values().iter().copied().zip(offsets.iter().copied()),
            );
            from = offsets[offsets.len() - 1] + 1;
        }
    }
    let letters = dead_letters(&storage, "e").await.unwrap();
    let letters: Vec<_> = letters.into_iter().map(|l| (l.partition, l.offset, l.reason)).collect();
    if !stops {
        assert_eq!((summary.events as usize, summary.rejected as usize), (places.len(), letters.len()));
    }
    ((values, places, letters), store.hook.failed.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_half_way_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let (calm, failures) = stream(folder.path(), (0, passing), 1000, false).await;
    assert_eq!(failures, 0);
    let (_, places, letters) = &calm;
    let (refused, divided) = letters.iter().partition::<Vec<_>, _>(|(_, _, reason)| !reason.contains("view shares"));
    assert_eq!(places.len() + refused.len(), (EVENTS * i64::from(PARTITIONS)) as usize);
    assert!(refused.len() > 20 && divided.len() > 50, "{} and {}", refused.len(), divided.len());
    for (every, max_records) in [(2, 1000), (3, 40), (3, 90), (5, 7), (7, 60)] {
        for stops in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (left, failures) = stream(folder.path(), (every, passing), max_records, stops).await;
            assert!(failures > 0, "every {every}");
            let how = format!("every {every}, batches of {max_records}, stops {stops}");
            assert_eq!(left.0, calm.0, "{how}");
            assert!(left.1 == calm.1, "{how}: {} rows, expected {}", left.1.len(), calm.1.len());
            assert!(left.2 == calm.2, "{how}: {} letters, expected {}", left.2.len(), calm.2.len());
        }
    }
}

/// What was read and not committed when a session ended is read again, and counted once.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_session_all_is_there_once() {
    let (calm, _) = stream(tempfile::tempdir().unwrap().path(), (0, lost), 1000, false).await;
    let (left, failures) = stream(tempfile::tempdir().unwrap().path(), (9, lost), 40, false).await;
    assert!(failures > 0);
    assert!(left == calm);
}

/// A partition that was lost meanwhile is not adopted: what was on the way to its archive must not be written any more.
#[tokio::test]
async fn who_begins_again_has_nothing_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(&folder.path().to_string_lossy()).unwrap();
    let contract = Arc::new(Contract::parse("e.v1", CONTRACT).unwrap());
    let log = Arc::new(EventLog::open(folder.path().join("log.redb")).unwrap());
    let event = Encoder::new(contract.clone()).encode(&json!({"k": 1, "x": 1, "at": 1_000_000})).unwrap();
    log.append("e", 1, vec![(0, event)]).await.unwrap();
    let mut source = LogSource::new("e", log, contract.clone(), None).unwrap();
    let batch = source.read(1, 0, 10).await.unwrap().unwrap();
    let mut archive = ArchiveWriter::open(storage.clone(), "e", source.schema(), 70).await.unwrap();
    archive.append(1, &batch.events, batch.next_offset).await.unwrap();
    assert_eq!(archive.pending_rows(), 1);
    let mut worker = Worker::new(
        Box::new(source),
        vec![],
        Arc::new(EmbeddedStore::open(folder.path().join("store.redb")).unwrap()),
        (Some(archive), Past::Archive { storage: storage.clone(), contract, history: None }),
        Box::new(DeadLetterWriter::open(storage, "e").await.unwrap()),
        (Arc::new(Progress::default()), Metrics::new().unwrap()),
        WorkerConfig::default(),
    );
    worker.owned.insert(1, Owned { next: 1, committed: 0 });
    worker.begin_again(&StreamError::Fenced { view: String::new(), partition: 1 });
    assert_eq!(worker.archive.unwrap().pending_rows(), 0);
}
