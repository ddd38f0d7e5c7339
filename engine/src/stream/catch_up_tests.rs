//! A view that is new while events come: whenever it is killed, whoever loads it beside, it ends up with what it would have had from the
//! beginning, and the stream doesn't wait for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::json;

use super::super::worker::Held;
use super::super::{Done, FillConfig, Load, Past, Progress, Until, Worker, WorkerConfig};
use crate::metrics::Metrics;
use crate::offline::{ArchiveWriter, DeadLetterWriter, Storage};
use crate::online::conformance::reopened;
use crate::online::{EmbeddedStore, OnlineStore, ViewId};
use crate::plan::Project;
use crate::request::Reader;
use crate::source::{Contract, Encoder, EventLog, LogSource, event_schema};

const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"}, {"name": "x", "type": "long"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
const SOURCE: &str = "CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at');";
const OLD: &str = "CREATE FEATURE VIEW old AS SELECT k, COUNT(*) OVER w AS n FROM e
WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);";
const NEW: &str =
    "CREATE FEATURE VIEW new AS SELECT k, COUNT(*) OVER w AS n, SUM(x) OVER w AS s, LAST_VALUE(x) OVER w AS last FROM e
WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);";
const PARTITIONS: i32 = 2;
const KEYS: i64 = 5;

struct House {
    folder: PathBuf,
    log: Arc<EventLog>,
    contract: Arc<Contract>,
    sent: i64,
}

impl House {
    fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("schemas")).unwrap();
        std::fs::write(folder.join("schemas/e.v1.avsc"), CONTRACT).unwrap();
        let log = Arc::new(EventLog::open(folder.join("log.redb")).unwrap());
        let contract = Arc::new(Contract::parse("e.v1", CONTRACT).unwrap());
        Self { folder: folder.to_owned(), log, contract, sent: 0 }
    }

    /// With some events, which the old view has.
    async fn begun(folder: &Path) -> (Self, EmbeddedStore) {
        let (mut house, store) = (House::new(folder), EmbeddedStore::open(folder.join("online.redb")).unwrap());
        house.send(200).await;
        let project = house.project(&[OLD]).await;
        house.worker(&project, &store, 1000).await.run(Until::End).await.unwrap();
        (house, store)
    }

    async fn project(&self, views: &[&str]) -> Project {
        let features = self.folder.join("features");
        std::fs::create_dir_all(&features).unwrap();
        std::fs::write(features.join("e.sql"), format!("{SOURCE}\n{}", views.join("\n"))).unwrap();
        Project::load(&self.folder, &features).await.unwrap()
    }

    /// Events, every tenth of which is none.
    async fn send(&mut self, n: i64) {
        let encoder = Encoder::new(Arc::clone(&self.contract));
        let event = |i: i64| match i % 10 {
            3 => bytes::Bytes::from_static(b"not an event"),
            _ => encoder.encode(&json!({"k": i % KEYS, "x": i, "at": i * 1_000_000})).unwrap(),
        };
        for partition in 0..PARTITIONS {
            let sent = (self.sent..self.sent + n).filter(|i| *i as i32 % PARTITIONS == partition);
            self.log.append("e", partition, sent.map(|i| (i * 1_000_000, event(i))).collect()).await.unwrap();
        }
        self.sent += n;
    }

    fn storage(&self) -> Storage {
        Storage::open(&self.folder.join("offline").to_string_lossy()).unwrap()
    }

    async fn worker(&self, project: &Project, store: &EmbeddedStore, records: usize) -> Worker {
        let schema = event_schema(&project.sources["e"].schema);
        Worker::new(
            Box::new(LogSource::new("e", self.log.clone(), self.contract.clone(), None).unwrap()),
            project.views_of("e"),
            Arc::new(store.clone()),
            (
                Some(ArchiveWriter::open(self.storage(), "e", schema, 30).await.unwrap()),
                Past::Archive { storage: self.storage(), contract: self.contract.clone(), history: None },
            ),
            Box::new(DeadLetterWriter::open(self.storage(), "e").await.unwrap()),
            (Arc::new(Progress::default()), Metrics::new().unwrap()),
            WorkerConfig { max_records: 7, commit_events: 40, fill: few(records), ..WorkerConfig::default() },
        )
    }

    async fn values(&self, project: &Project, store: &EmbeddedStore) -> Vec<String> {
        let reader = Reader::new(Arc::new(store.clone()));
        let mut values = vec![];
        for view in project.views.values() {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS));
            let answer = reader.view(view, &[keys], &[self.sent * 1_000_000; KEYS as usize]).await.unwrap();
            values.push(format!("{} {:?}", view.name, answer.values.columns()));
        }
        values
    }

    /// What a view has that was there from the beginning.
    async fn expected(&self, project: &Project) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let other =
            Self { folder: folder.path().to_owned(), log: self.log.clone(), contract: self.contract.clone(), ..*self };
        let store = EmbeddedStore::open(folder.path().join("online.redb")).unwrap();
        other.worker(project, &store, 1000).await.run(Until::End).await.unwrap();
        self.values(project, &store).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_view_catches_up_while_events_come() {
    let mut went_on = 0;
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut house = House::new(folder.path());
        let path = folder.path().join("online.redb");
        let mut store = EmbeddedStore::open(&path).unwrap();
        let before = house.project(&[OLD]).await;
        house.send(rng.random_range(0..300)).await;
        house.worker(&before, &store, 1000).await.run(Until::End).await.unwrap();

        let project = house.project(&[OLD, NEW]).await;
        for _ in 0..rng.random_range(1..4) {
            let mut worker = house.worker(&project, &store, rng.random_range(1..50)).await;
            for _ in 0..rng.random_range(0..8) {
                house.send(rng.random_range(0..20)).await;
                worker.step().await.unwrap();
                // The stream has read what came, whatever the new view lacks.
                let read: i64 = worker.owned.values().map(|owned| owned.next).sum();
                went_on += usize::from(worker.catches_up() && read == house.sent);
            }
            if rng.random_bool(0.3) {
                load(&house, &project, &store, rng.random_range(1..50)).await;
            }
            // Killed, with what the disk has or has not.
            drop(worker);
            if rng.random_bool(0.5) {
                drop(store);
                store = reopened(&path).await;
            }
        }
        let mut worker = house.worker(&project, &store, rng.random_range(1..50)).await;
        house.send(rng.random_range(0..20)).await;
        worker.run(Until::End).await.unwrap();
        assert!(!worker.catches_up());
        assert_eq!(house.values(&project, &store).await, house.expected(&project).await, "seed {seed}");
    }
    assert!(went_on > 20, "the stream went on {went_on} times while a view filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_loaded_is_taken_up_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let (mut house, store) = House::begun(folder.path()).await;
    let project = house.project(&[OLD, NEW]).await;
    load(&house, &project, &store, 33).await;
    assert_eq!(house.values(&project, &store).await, house.expected(&project).await);
    let mut worker = house.worker(&project, &store, 1000).await;
    worker.step().await.unwrap();
    assert!(!worker.catches_up() && worker.views.iter().all(|view| view.missing().is_empty()));
    house.send(50).await;
    worker.run(Until::End).await.unwrap();
    load(&house, &project, &store, 10).await;
    assert_eq!(house.values(&project, &store).await, house.expected(&project).await);
}

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Seconds since the first look, as the test has it.
fn clock() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_secs(PASSED.load(Ordering::SeqCst))
}

/// Files of the archive that can't be read: the stream goes on as ever, and the fill is tried again less and less often.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_fails_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut house, store) = House::begun(folder.path()).await;
    let pattern = folder.path().join("offline/archive/e/*/0-*.parquet");
    let files: Vec<PathBuf> = glob::glob(&pattern.to_string_lossy()).unwrap().flatten().collect();
    let first = files.iter().find(|file| file.to_string_lossy().contains("/0-0")).unwrap();
    let whole = std::fs::read(first).unwrap();
    std::fs::write(first, &whole[..whole.len() / 2]).unwrap();

    let project = house.project(&[OLD, NEW]).await;
    let mut worker = house.worker(&project, &store, 50).await;
    worker.config.clock = clock;
    let tries = |worker: &Worker| worker.metrics.retries.with_label_values(&["e", "fill"]).get();
    let mut tried = vec![];
    for second in 0..40 {
        PASSED.store(second, Ordering::SeqCst);
        house.send(5).await;
        // Whatever is begun ends within this second.
        for _ in 0..3 {
            while worker.step().await.unwrap() {}
            let _ = tokio::time::timeout(Duration::from_millis(50), worker.catch_up.wait()).await;
        }
        let read: i64 = worker.owned.values().map(|owned| owned.next).sum();
        assert_eq!(read, house.sent, "the stream stands still in second {second}");
        tried.push(tries(&worker));
    }
    // At 0, and then after half a second, one, two, four, eight and sixteen: as whole seconds show it, at 1, 2, 4, 8, 16 and 32.
    assert_eq!((tried[0], tried[39]), (1, 7), "{tried:?}");
    let why = worker.progress.stuck("e").unwrap();
    assert!(why.contains("0-0"), "{why}");
    // A drain doesn't wait for what may never come.
    let error = house.worker(&project, &store, 50).await.run(Until::End).await.unwrap_err();
    assert!(error.to_string().contains("0-0"), "{error}");

    std::fs::write(first, whole).unwrap();
    PASSED.store(1000, Ordering::SeqCst);
    worker.run(Until::End).await.unwrap();
    assert_eq!(worker.progress.stuck("e"), None);
    assert_eq!(house.values(&project, &store).await, house.expected(&project).await);
}

/// Versions of a view that others have: what is remembered of one stays for as long as somebody writes to it, and goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_of_a_version_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::new(folder.path());
    let store = EmbeddedStore::open(folder.path().join("online.redb")).unwrap();
    house.send(20).await;
    let project = house.project(&[OLD]).await;
    let mut worker = house.worker(&project, &store, 1000).await;
    while worker.step().await.unwrap() {}
    worker.commit().await.unwrap();
    let version = |name: &str, fingerprint: &str| ViewId { name: name.into(), fingerprint: fingerprint.into() };
    let of = |fingerprint: &str| {
        [("old", 5), ("@history of old", 9), ("@horizon of old", 77)]
            .map(|(name, at)| (version(name, fingerprint), [(0, at)].into()))
    };
    let enter = async |id: &ViewId, from: Option<i64>, to: i64| {
        let session = store.session().await.unwrap();
        store.set_progress(session, id, 0, from, to).await.unwrap();
    };
    let before: Held = of("kept").into_iter().chain(of("left")).collect();
    for (id, held) in &before {
        enter(id, None, held[&0]).await;
    }
    enter(&version("@horizon of old", "long gone"), None, 1).await;
    enter(&version("old", "kept"), Some(5), 6).await;
    let there = async |fingerprint: &str| {
        let views = store.views().await.unwrap();
        views.iter().filter(|id| id.fingerprint == fingerprint).count()
    };
    (worker.tidied, worker.doomed) = (false, Some((before, Instant::now())));
    worker.tidy().await.unwrap();
    assert_eq!((there("kept").await, there("left").await, there("long gone").await), (3, 0, 0));
    assert!(!worker.tidied, "what is kept is looked at again");
    worker.tidy().await.unwrap();
    assert_eq!((there("kept").await, worker.tidied), (0, true), "nobody wrote to it any more");
    let own = &project.views["old"].fingerprint;
    assert_eq!(there(own).await, 2, "the project's own, and its history");
}

/// So many events at once, and memory for few of them.
fn few(records: usize) -> FillConfig {
    FillConfig { records, memory: 10_000, ..FillConfig::default() }
}

async fn load(house: &House, project: &Project, store: &EmbeddedStore, records: usize) {
    let store: Arc<dyn OnlineStore> = Arc::new(store.clone());
    let past = Past::Archive { storage: house.storage(), contract: house.contract.clone(), history: None };
    let view = project.views["new"].clone();
    let load = Load { view, store, past, config: few(records), reached: Default::default() };
    load.run(&|_, _| ()).await.unwrap();
    let Done { all, read, folded } = load.reached.done();
    assert_eq!((read, folded), (all, all), "what it said of itself");
}
