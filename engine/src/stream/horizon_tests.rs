//! Views over an archive whose oldest events were removed: what is answered is what all events give, and the rest is refused, online and offline.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use chrono::{DateTime, Months, Utc};
use datafusion::datasource::memory::MemorySourceConfig;
use futures::FutureExt;
use futures::future::ready;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::json;

use super::super::{Load, Past, Progress, StreamError, Until, Worker, WorkerConfig};
use crate::batch::{Spine, session, training_plan};
use crate::metrics::Metrics;
use crate::offline::{
    ArchiveWriter, Compaction, DeadLetterWriter, Removed, Retention, Storage, archive_table, compact,
};
use crate::online::{EmbeddedStore, OnlineStore};
use crate::plan::{FeatureService, Project, timestamp_type};
use crate::request::{ReadStatus, Reader};
use crate::source::{Contract, Encoder, EventLog, LogSource, event_schema};

const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"}, {"name": "x", "type": "long"},
  {"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
const SOURCE: &str = "CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at', event_id = 'id');";
const HOUR: i64 = 3_600_000_000;
/// A millisecond past 2024-02-27, so that days and tiles are cut anywhere.
const START: i64 = 1_708_992_000_001_000;
const KEYS: i64 = 4;
const PARTITIONS: i64 = 2;

/// A view with one frame, as SQL and as what it covers.
struct Shape {
    name: &'static str,
    options: &'static str,
    frame: &'static str,
    months: u32,
    hours: i64,
    until: i64,
    tile: i64,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "short",
        options: "",
        frame: "INTERVAL '5 hours' PRECEDING AND CURRENT ROW",
        months: 0,
        hours: 5,
        until: 0,
        tile: 1,
    },
    Shape {
        name: "days",
        options: "WITH (lateness = '400 days')",
        frame: "INTERVAL '2 days' PRECEDING AND INTERVAL '3 hours' PRECEDING",
        months: 0,
        hours: 48,
        until: 3,
        tile: 1,
    },
    Shape {
        name: "month",
        options: "WITH (lateness = '400 days')",
        frame: "INTERVAL '1 month' PRECEDING AND CURRENT ROW",
        months: 1,
        hours: 0,
        until: 0,
        tile: 1,
    },
    Shape {
        name: "tiled",
        options: "WITH (lateness = '400 days', tile = '7 hours')",
        frame: "INTERVAL '3 days' PRECEDING AND CURRENT ROW",
        months: 0,
        hours: 72,
        until: 0,
        tile: 7 * HOUR,
    },
];

impl Shape {
    fn sql(&self) -> String {
        let Shape { name, options, frame, .. } = self;
        format!(
            "CREATE FEATURE VIEW {name} {options} AS SELECT k, COUNT(*) OVER w AS n, SUM(x) OVER w AS s FROM e
             WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN {frame});
             CREATE FEATURE SERVICE s_{name} (k BIGINT) AS SELECT v.n, v.s FROM request LEFT JOIN {name} v ON v.k = request.k;"
        )
    }

    /// What a frame at an instant covers, both ends included.
    fn covers(&self, at: i64) -> (i64, i64) {
        let instant = DateTime::from_timestamp_micros(at).unwrap();
        let start =
            instant.checked_sub_months(Months::new(self.months)).unwrap().timestamp_micros() - self.hours * HOUR;
        (start.div_euclid(self.tile) * self.tile, at - self.until * HOUR)
    }
}

#[derive(Clone)]
struct Event {
    k: i64,
    x: i64,
    id: String,
    at: i64,
}

struct House {
    folder: tempfile::TempDir,
    log: Arc<EventLog>,
    contract: Arc<Contract>,
    sent: Vec<Event>,
    now: i64,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("schemas")).unwrap();
        std::fs::write(folder.path().join("schemas/e.v1.avsc"), CONTRACT).unwrap();
        let log = Arc::new(EventLog::open(folder.path().join("log.redb")).unwrap());
        let contract = Arc::new(Contract::parse("e.v1", CONTRACT).unwrap());
        Self { folder, log, contract, sent: vec![], now: START }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn project(&self, more: &str, shapes: &[Shape]) -> Project {
        let features = self.path().join("features");
        std::fs::create_dir_all(&features).unwrap();
        let sql: String = shapes.iter().map(Shape::sql).collect();
        std::fs::write(features.join("e.sql"), format!("{SOURCE}\n{sql}\n{more}")).unwrap();
        Project::load(self.path(), &features).await.unwrap()
    }

    /// Events, an hour or so after each other; some are late, some are none, some are sent twice, and some are the last of their key.
    async fn send(&mut self, n: i64, rng: &mut StdRng) {
        let encoder = Encoder::new(Arc::clone(&self.contract));
        for i in 0..n {
            self.now += rng.random_range(0..3 * HOUR);
            // The same event comes to the same partition: its key's.
            let k = if i % 9 == 0 && self.sent.len() < 40 { KEYS } else { rng.random_range(0..KEYS) };
            let late = if rng.random_bool(0.2) { rng.random_range(0..60 * HOUR) } else { rng.random_range(0..HOUR) };
            let new = Event { k, x: rng.random_range(-9..99), id: format!("{}", self.now), at: self.now - late };
            let again = rng.random_bool(0.1).then(|| self.sent.last().cloned()).flatten();
            let event = again.unwrap_or_else(|| new.clone());
            let bytes = match rng.random_bool(0.1) {
                true => bytes::Bytes::from_static(b"not an event"),
                false => {
                    let Event { k, x, id, at } = &event;
                    let bytes = encoder.encode(&json!({"k": k, "x": x, "id": id, "at": at})).unwrap();
                    self.sent.push(event.clone());
                    bytes
                }
            };
            self.log.append("e", (event.k % PARTITIONS) as i32, vec![(self.now, bytes)]).await.unwrap();
        }
    }

    fn storage(&self) -> Storage {
        Storage::open(&self.path().join("offline").to_string_lossy()).unwrap()
    }

    async fn worker(
        &self,
        project: &Project,
        store: &EmbeddedStore,
        progress: &Arc<Progress>,
        records: usize,
    ) -> Worker {
        // Who reads what this filled looks for the first time then.
        let config = WorkerConfig { fill_records: records, pause: |_| ready(()).boxed(), ..WorkerConfig::default() };
        self.worker_with(project, Arc::new(store.clone()), progress, config).await
    }

    async fn worker_with(
        &self,
        project: &Project,
        store: Arc<dyn OnlineStore>,
        progress: &Arc<Progress>,
        config: WorkerConfig,
    ) -> Worker {
        let schema = event_schema(&project.sources["e"].schema);
        let source = LogSource::new("e", self.log.clone(), self.contract.clone(), None).unwrap();
        Worker::new(
            Box::new(source),
            project.views_of("e"),
            store,
            (
                Some(ArchiveWriter::open(self.storage(), "e", schema, 30).await.unwrap()),
                Past::Archive { storage: self.storage(), contract: self.contract.clone(), history: None },
            ),
            Box::new(DeadLetterWriter::open(self.storage(), "e").await.unwrap()),
            (progress.clone(), Metrics::new().unwrap()),
            WorkerConfig { max_records: 9, commit_events: 10, ..config },
        )
    }

    /// Removes what is older, at once or with nothing gone yet.
    async fn remove(&self, before: i64, at_once: bool) {
        let retention = Some(Retention { timestamp: "at".into(), before });
        let grace = if at_once { Duration::ZERO } else { Duration::from_secs(3600) };
        let how = Compaction {
            order: vec!["at".into()],
            before: None,
            grace,
            rows_per_file: 200,
            retention,
            now: Utc::now() + chrono::Duration::seconds(60),
        };
        for _ in 0..2 {
            compact(&self.storage(), "e", &how, &mut |_| ()).await.unwrap();
        }
    }

    async fn removed(&self) -> Removed {
        archive_table(&self.storage(), "e", &self.contract).await.unwrap().removed
    }

    /// Count and sum over all events that were ever sent.
    fn truth(&self, shape: &Shape, k: i64, at: i64) -> (i64, Option<i64>) {
        let (from, until) = shape.covers(at);
        let mut ids = std::collections::BTreeSet::new();
        let covered = self.sent.iter().filter(|e| e.k == k && (from..=until).contains(&e.at));
        let xs: Vec<i64> = covered.filter(|e| ids.insert((&e.id, e.at))).map(|e| e.x).collect();
        (xs.len() as i64, (!xs.is_empty()).then(|| xs.iter().sum()))
    }

    /// Whether there are events behind an instant in the tile that the instant is in.
    fn cuts_a_tile(&self, shape: &Shape, k: i64, at: i64) -> bool {
        let tile = |at: i64| at.div_euclid(shape.tile);
        shape.tile > 1 && self.sent.iter().any(|e| e.k == k && e.at > at && tile(e.at) == tile(at))
    }

    /// A training set of these rows, or why there is none.
    async fn training(
        &self,
        project: &Project,
        service: &FeatureService,
        rows: &[(i64, i64)],
    ) -> Result<RecordBatch, String> {
        let past = archive_table(&self.storage(), "e", &self.contract).await.unwrap();
        let (ks, ats): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        let fields = vec![Field::new("k", DataType::Int64, true), Field::new("t", timestamp_type(), true)];
        let schema = Arc::new(Schema::new(fields));
        let ats: ArrayRef = Arc::new(TimestampMicrosecondArray::from(ats).with_timezone("UTC"));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(ks)), ats]).unwrap();
        let batch = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap();
        let spine = Spine::new(service, batch, "t").unwrap();
        let plan = training_plan(project, service, &spine, &|_| Ok(past.clone()), None).map_err(|e| e.to_string())?;
        let frame = session().execute_logical_plan(plan).await.unwrap();
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let rows = frame.collect().await.map_err(|e| e.to_string())?;
        Ok(arrow::compute::concat_batches(&schema, &rows).unwrap())
    }
}

fn values(rows: &RecordBatch, row: usize) -> (i64, Option<i64>) {
    let column = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (n, s) = (column("n"), column("s"));
    (n.value(row), s.is_valid(row).then(|| s.value(row)))
}

/// What was met.
#[derive(Debug, Default)]
struct Met {
    online: usize,
    online_refused: usize,
    now_refused: usize,
    absent: usize,
    absent_refused: usize,
    offline: usize,
    offline_refused: usize,
    removed_while_filling: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_all_events_give_and_the_rest_is_refused() {
    let mut met = Met::default();
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut house = House::new();
        let path = house.path().join("online.redb");
        let mut store = EmbeddedStore::open(&path).unwrap();
        // One is full before anything goes.
        let (old, new) = SHAPES.split_at(1);
        let before = house.project("", old).await;
        house.send(rng.random_range(150..500), &mut rng).await;
        let mut progress = Arc::new(Progress::default());
        house.worker(&before, &store, &progress, 1000).await.run(Until::End).await.unwrap();
        let kept = |house: &House, rng: &mut StdRng| START + (house.now - START) * rng.random_range(1..10) / 10;
        if rng.random_bool(0.7) {
            house.remove(kept(&house, &mut rng), rng.random_bool(0.7)).await;
        }

        let project = house.project("", &SHAPES).await;
        for _ in 0..rng.random_range(0..4) {
            progress = Arc::new(Progress::default());
            let mut worker = house.worker(&project, &store, &progress, rng.random_range(1..60)).await;
            for _ in 0..rng.random_range(0..6) {
                house.send(rng.random_range(0..20), &mut rng).await;
                worker.step().await.unwrap();
                if rng.random_bool(0.15) {
                    met.removed_while_filling += usize::from(worker.catches_up());
                    house.remove(kept(&house, &mut rng), rng.random_bool(0.7)).await;
                }
            }
            if rng.random_bool(0.3) {
                let load = Load {
                    view: project.views[new[rng.random_range(0..new.len())].name].clone(),
                    store: Arc::new(store.clone()) as Arc<dyn OnlineStore>,
                    past: Past::Archive { storage: house.storage(), contract: house.contract.clone(), history: None },
                    records: rng.random_range(1..60),
                    reached: Default::default(),
                    pause: |_| ready(()).boxed(),
                };
                load.run(&|_, _| ()).await.unwrap();
            }
            drop(worker);
            if rng.random_bool(0.5) {
                drop(store);
                store = loop {
                    match EmbeddedStore::open(&path) {
                        Ok(store) => break store,
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
            }
        }
        progress = Arc::new(Progress::default());
        let mut worker = house.worker(&project, &store, &progress, rng.random_range(1..60)).await;
        worker.run(Until::End).await.unwrap();
        let reader = Reader::new(Arc::new(store.clone()));
        let horizon = house.removed().await.horizon("at");
        for shape in &SHAPES {
            check(&house, &project, shape, (&reader, horizon), &mut rng, &mut met, seed).await;
        }
    }
    println!("{met:?}");
    assert!(met.online > 500 && met.online_refused > 200 && met.now_refused > 0, "{met:?}");
    assert!(met.absent > 20 && met.absent_refused > 20, "{met:?}");
    assert!(met.offline > 500 && met.offline_refused > 200 && met.removed_while_filling > 3, "{met:?}");
}

async fn check(
    house: &House,
    project: &Project,
    shape: &Shape,
    (reader, horizon): (&Reader, Option<i64>),
    rng: &mut StdRng,
    met: &mut Met,
    seed: u64,
) {
    let now = house.now;
    // Anywhere, and at the edges of what is left.
    let edges = horizon.map_or(vec![], |horizon| {
        let from = project.views[shape.name].kernel.reaches_no_further_than(horizon).unwrap();
        vec![from - 1, from, from + 1]
    });
    let anywhere = (0..12).map(|_| START + rng.random_range(0..now - START + 40 * 24 * HOUR));
    let instants: Vec<i64> = anywhere.chain(edges).chain([now]).collect();
    // The last but one was quiet for long, the last one never seen.
    let asked: Vec<(i64, i64)> = instants.iter().flat_map(|at| (0..=KEYS + 1).map(|k| (k, *at))).collect();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(asked.iter().map(|(k, _)| *k)));
    let ats: Vec<i64> = asked.iter().map(|(_, at)| *at).collect();
    let answer = reader.view(&project.views[shape.name], &[keys], &ats).await.unwrap();
    let needs_gone = |at: i64| horizon.is_some_and(|horizon| shape.covers(at).0 < horizon);
    for (row, (k, at)) in asked.iter().enumerate() {
        let place = format!("seed {seed}, view {}, key {k}, as of {}", shape.name, crate::source::instant(*at));
        let status = answer.views[0].status[row];
        let absent = *k > KEYS;
        match status {
            ReadStatus::OutsideRetention => {
                // The one that was full before has a retention of its own, and no instant at now is outside of it; a sealed tile
                // knows no instant between its events.
                let own = shape.name == "short" && !absent && *at < now;
                let own = own || house.cuts_a_tile(shape, *k, *at);
                assert!(own || (shape.name != "short" && needs_gone(*at)), "{place}: it could be answered");
                met.online_refused += 1;
                met.now_refused += usize::from(*at == now);
                met.absent_refused += usize::from(absent);
            }
            _ => {
                assert_eq!(values(&answer.values, row), house.truth(shape, *k, *at), "{place}");
                met.online += 1;
                met.absent += usize::from(absent);
            }
        }
    }
    let service = &project.services[&format!("s_{}", shape.name)];
    let (refused, answered): (Vec<_>, Vec<_>) = asked.iter().copied().partition(|(_, at)| needs_gone(*at));
    let rows = house.training(project, service, &answered).await.unwrap();
    for (row, (k, at)) in answered.iter().enumerate() {
        assert_eq!(values(&rows, row), house.truth(shape, *k, *at), "seed {seed}, {}, {k} at {at}", shape.name);
        met.offline += 1;
    }
    if let Some(worst) = refused.get(rng.random_range(0..refused.len().max(1))) {
        let mut rows = answered.clone();
        let place = rng.random_range(0..=rows.len());
        rows.insert(place, *worst);
        let error = house.training(project, service, &rows).await.unwrap_err();
        let expected =
            format!("row {} of the spine, as of {}, view {}: ", place + 1, crate::source::instant(worst.1), shape.name);
        assert!(error.contains(&expected) && error.contains("removed from its archive by retention"), "{error}");
        met.offline_refused += refused.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_needs_all_events_is_refused_once_some_are_gone() {
    const EVER: &str = "CREATE FEATURE VIEW ever AS SELECT k, COUNT(*) OVER w AS n FROM e
        WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
        CREATE FEATURE VIEW latest AS SELECT k, SUM(x) OVER w AS n FROM e
        WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW);
        CREATE FEATURE SERVICE s_ever (k BIGINT) AS SELECT v.n FROM request LEFT JOIN ever v ON v.k = request.k;";
    let mut rng = StdRng::seed_from_u64(1);
    let mut house = House::new();
    let store = EmbeddedStore::open(house.path().join("online.redb")).unwrap();
    house.send(300, &mut rng).await;
    let project = house.project("", &SHAPES[..1]).await;
    let progress = Arc::new(Progress::default());
    house.worker(&project, &store, &progress, 1000).await.run(Until::End).await.unwrap();
    house.remove((START + house.now) / 2, true).await;
    let project = house.project(EVER, &SHAPES[..1]).await;
    let error = house.worker(&project, &store, &progress, 1000).await.run(Until::End).await.unwrap_err();
    let StreamError::Removed { view, why } = &error else { panic!("{error}") };
    assert!(["ever", "latest"].contains(&view.as_str()) && why.contains("needs all events"), "{error}");
    assert!(!progress.filled(&project.views["ever"].id()) && !progress.filled(&project.views["latest"].id()));
    let error = house.training(&project, &project.services["s_ever"], &[(1, house.now)]).await.unwrap_err();
    assert!(error.contains("view ever: it needs all events there ever were"), "{error}");
}

#[path = "horizon_heard_tests.rs"]
mod heard;
