//! A log with events of a year, their archive, and views over it whose answers can be told from the events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use chrono::{DateTime, Months, Utc};
use datafusion::datasource::memory::MemorySourceConfig;
use futures::FutureExt;
use futures::future::ready;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::batch::{Spine, session, training_plan};
use crate::metrics::Metrics;
use crate::offline::{
    ArchiveWriter, Compaction, DeadLetterWriter, Removed, Retention, Storage, archive_table, compact,
};
use crate::online::{EmbeddedStore, OnlineStore};
use crate::plan::{FeatureService, Project, timestamp_type};
use crate::source::{Contract, Encoder, EventLog, LogSource, event_schema};
use crate::stream::{FillConfig, Past, Progress, Worker, WorkerConfig};

pub const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"}, {"name": "x", "type": "long"},
  {"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
pub const SOURCE: &str = "CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at', event_id = 'id');";
pub const HOUR: i64 = 3_600_000_000;
/// A millisecond past 2024-02-27, so that days and tiles are cut anywhere.
pub const START: i64 = 1_708_992_000_001_000;
pub const KEYS: i64 = 4;
pub const PARTITIONS: i64 = 2;

/// A view with one frame, as SQL and as what it covers.
pub struct Shape {
    pub name: &'static str,
    pub options: &'static str,
    pub frame: &'static str,
    pub months: u32,
    pub hours: i64,
    pub until: i64,
    pub tile: i64,
}

pub const SHAPES: [Shape; 4] = [
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
    pub fn sql(&self) -> String {
        let Shape { name, options, frame, .. } = self;
        format!(
            "CREATE FEATURE VIEW {name} {options} AS SELECT k, COUNT(*) OVER w AS n, SUM(x) OVER w AS s FROM e
             WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN {frame});
             CREATE FEATURE SERVICE s_{name} (k BIGINT) AS SELECT v.n, v.s FROM request LEFT JOIN {name} v ON v.k = request.k;"
        )
    }

    /// What a frame at an instant covers, both ends included.
    pub fn covers(&self, at: i64) -> (i64, i64) {
        let instant = DateTime::from_timestamp_micros(at).unwrap();
        let start =
            instant.checked_sub_months(Months::new(self.months)).unwrap().timestamp_micros() - self.hours * HOUR;
        (start.div_euclid(self.tile) * self.tile, at - self.until * HOUR)
    }
}

#[derive(Clone)]
pub struct Event {
    pub k: i64,
    pub x: i64,
    pub id: String,
    pub at: i64,
}

pub struct House {
    pub folder: tempfile::TempDir,
    pub log: Arc<EventLog>,
    pub contract: Arc<Contract>,
    pub sent: Vec<Event>,
    pub now: i64,
}

impl House {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("schemas")).unwrap();
        std::fs::write(folder.path().join("schemas/e.v1.avsc"), CONTRACT).unwrap();
        let log = Arc::new(EventLog::open(folder.path().join("log.redb")).unwrap());
        let contract = Arc::new(Contract::parse("e.v1", CONTRACT).unwrap());
        Self { folder, log, contract, sent: vec![], now: START }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn project(&self, more: &str, shapes: &[Shape]) -> Project {
        let features = self.path().join("features");
        std::fs::create_dir_all(&features).unwrap();
        let sql: String = shapes.iter().map(Shape::sql).collect();
        std::fs::write(features.join("e.sql"), format!("{SOURCE}\n{sql}\n{more}")).unwrap();
        Project::load(self.path(), &features).await.unwrap()
    }

    /// Events, an hour or so after each other; some are late, some are none, some are sent twice, and some are the last of their key.
    pub async fn send(&mut self, n: i64, rng: &mut StdRng) {
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

    pub fn storage(&self) -> Storage {
        Storage::open(&self.path().join("offline").to_string_lossy()).unwrap()
    }

    pub async fn worker(
        &self,
        project: &Project,
        store: &EmbeddedStore,
        progress: &Arc<Progress>,
        records: usize,
    ) -> Worker {
        // Who reads what this filled looks for the first time then.
        let fill = FillConfig { records, pause: |_| ready(()).boxed(), ..FillConfig::default() };
        let config = WorkerConfig { fill, ..WorkerConfig::default() };
        self.worker_with(project, Arc::new(store.clone()), progress, config).await
    }

    pub async fn worker_with(
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
    pub async fn remove(&self, before: i64, at_once: bool) {
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

    pub async fn removed(&self) -> Removed {
        archive_table(&self.storage(), "e", &self.contract).await.unwrap().removed
    }

    /// Count and sum over all events that were ever sent.
    pub fn truth(&self, shape: &Shape, k: i64, at: i64) -> (i64, Option<i64>) {
        let (from, until) = shape.covers(at);
        let mut ids = std::collections::BTreeSet::new();
        let covered = self.sent.iter().filter(|e| e.k == k && (from..=until).contains(&e.at));
        let xs: Vec<i64> = covered.filter(|e| ids.insert((&e.id, e.at))).map(|e| e.x).collect();
        (xs.len() as i64, (!xs.is_empty()).then(|| xs.iter().sum()))
    }

    /// Whether there are events behind an instant in the tile that the instant is in.
    pub fn cuts_a_tile(&self, shape: &Shape, k: i64, at: i64) -> bool {
        let tile = |at: i64| at.div_euclid(shape.tile);
        shape.tile > 1 && self.sent.iter().any(|e| e.k == k && e.at > at && tile(e.at) == tile(at))
    }

    /// A training set of these rows, or why there is none.
    pub async fn training(
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

pub fn values(rows: &RecordBatch, row: usize) -> (i64, Option<i64>) {
    let column = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (n, s) = (column("n"), column("s"));
    (n.value(row), s.is_valid(row).then(|| s.value(row)))
}
