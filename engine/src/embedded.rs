//! The embedded platform: one process over one folder, with nothing else installed.
//!
//! ```text
//! <folder>/log.redb       events, durable before a push is answered
//! <folder>/online.redb    timelines
//! <folder>/offline/       archive/ and dead-letters/, ordinary Parquet and NDJSON files
//! ```
//!
//! Same engine and same guarantees as with Kafka and Redis: kill it at any moment, start it again, and nothing is lost
//! or counted twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::catalog::{Source, read_as};
use crate::metrics::Metrics;
use crate::offline::{ARCHIVE_ROWS_PER_FILE, ArchiveReader, ArchiveWriter, DeadLetterWriter, OfflineError, Storage};
use crate::offline::{archive_table, archived_ranges};
use crate::online::{EmbeddedStore, OnlineStore, StoreError};
use crate::plan::Project;
use crate::request::Reader;
use crate::source::{
    Encoder, EventLog, EventSource, FileSource, LogError, LogSource, SourceError, event_schema,
    files::{FilesConfig, Reading},
    partition_of,
};
use crate::sql::Connector;
use crate::stream::{Archived, Progress, StreamError, Summary, Until, Worker, WorkerConfig};

/// Where things are in a data folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The root of archive, dead letters and snapshots.
    pub fn offline(&self) -> PathBuf {
        self.0.join("offline")
    }

    /// The event log, if there is one. One process at a time has it open.
    pub fn open_log(&self) -> Result<Option<Arc<EventLog>>, LogError> {
        self.log().exists().then(|| EventLog::open(self.log()).map(Arc::new)).transpose()
    }

    fn log(&self) -> PathBuf {
        self.0.join("log.redb")
    }

    fn online(&self) -> PathBuf {
        self.0.join("online.redb")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("data folder {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("no source `{0}`")]
    UnknownSource(String),
    #[error("source `{0}` reads files: events can't be pushed to it")]
    NotPushable(String),
    #[error("the worker of source {0} ended abnormally")]
    Worker(String),
}

/// Why one pushed record was refused, or at which offset it was taken.
pub type Pushed = Result<i64, String>;

#[derive(Debug)]
pub struct Embedded {
    pub project: Arc<Project>,
    pub folder: Folder,
    pub log: Arc<EventLog>,
    pub store: Arc<dyn OnlineStore>,
    pub progress: Arc<Progress>,
    pub metrics: Metrics,
    pub config: WorkerConfig,
}

impl Embedded {
    /// Opens the folder, or makes it. One process at a time holds it.
    pub fn open(project: Arc<Project>, folder: Folder) -> Result<Self, EmbeddedError> {
        std::fs::create_dir_all(folder.path())
            .map_err(|source| EmbeddedError::Folder { path: folder.path().into(), source })?;
        let log = Arc::new(EventLog::open(folder.log())?);
        let store: Arc<dyn OnlineStore> = Arc::new(EmbeddedStore::open(folder.online())?);
        let metrics = Metrics::new()?;
        Ok(Self { project, folder, log, store, progress: Arc::default(), metrics, config: WorkerConfig::default() })
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.store.clone())
    }

    /// Appends events to a source's log, each taken or refused by itself. Taken means durable.
    pub async fn push(&self, source: &str, records: &[Json], now: i64) -> Result<Vec<Pushed>, EmbeddedError> {
        let (source, encoder) = self.encoder(source)?;
        let encoder = encoder.checking(&source.timestamp, source.options.max_future);
        let encoded = encoder.encode_batch(records, now);
        let mut by_partition: Vec<Batch> = vec![Batch::default(); source.partitions() as usize];
        let mut answers: Vec<Pushed> = Vec::with_capacity(records.len());
        for (i, record) in encoded.into_iter().enumerate() {
            match record {
                Ok(payload) => {
                    let partition = self.partition(&source, &records[i], &payload);
                    if let Some(batch) = by_partition.get_mut(partition as usize) {
                        batch.places.push(i);
                        batch.messages.push((now, payload));
                    }
                    answers.push(Ok(0));
                }
                Err(refused) => answers.push(Err(refused.to_string())),
            }
        }
        for (partition, batch) in (0i32..).zip(by_partition).filter(|(_, batch)| !batch.places.is_empty()) {
            let first = self.log.append(&source.name, partition, batch.messages).await?;
            for (offset, place) in (first..).zip(batch.places) {
                answers[place] = Ok(offset);
            }
        }
        Ok(answers)
    }

    /// Appends Avro datums that are already encoded to the source's contract: generators and loaders.
    pub async fn append(&self, source: &str, datums: Vec<(i64, Vec<u8>)>) -> Result<(), EmbeddedError> {
        let (source, encoder) = self.encoder(source)?;
        let framed: Vec<(i64, Bytes)> = datums.into_iter().map(|(at, datum)| (at, encoder.frame(&datum))).collect();
        let n = source.partitions() as i32;
        if n <= 1 {
            self.log.append(&source.name, 0, framed).await?;
            return Ok(());
        }
        let mut by_partition: Vec<Vec<(i64, Bytes)>> = vec![vec![]; n as usize];
        for record in framed {
            let partition = crc32fast::hash(&record.1) as usize % n as usize;
            by_partition[partition].push(record);
        }
        for (partition, batch) in (0i32..).zip(by_partition).filter(|(_, batch)| !batch.is_empty()) {
            self.log.append(&source.name, partition, batch).await?;
        }
        Ok(())
    }

    fn encoder(&self, source: &str) -> Result<(Arc<Source>, Encoder), EmbeddedError> {
        let found = self.project.sources.get(source).ok_or_else(|| EmbeddedError::UnknownSource(source.to_owned()))?;
        let contract = found.contract.clone().ok_or_else(|| EmbeddedError::NotPushable(source.to_owned()))?;
        Ok((found.clone(), Encoder::new(contract)))
    }

    /// An event sent twice must land in the same partition: it is chosen by the event id, or else by the bytes.
    fn partition(&self, source: &Source, record: &Json, payload: &[u8]) -> i32 {
        let n = source.partitions() as i32;
        match source.event_id.as_ref().and_then(|id| record.get(id)) {
            Some(id) => partition_of(&id.to_string(), n),
            None => (crc32fast::hash(payload) % n.max(1) as u32) as i32,
        }
    }

    /// A worker for each source, each on a thread of its own, so that a batch never delays a request.
    pub fn start(
        self: &Arc<Self>,
        stop: &watch::Receiver<bool>,
    ) -> Vec<(String, JoinHandle<Result<Summary, EmbeddedError>>)> {
        let sources: Vec<Arc<Source>> = self.project.sources.values().cloned().collect();
        sources
            .into_iter()
            .map(|source| {
                let (this, stop, name) = (self.clone(), stop.clone(), source.name.clone());
                let run = move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .map_err(|source| EmbeddedError::Folder { path: this.folder.path().into(), source })?;
                    runtime.block_on(async {
                        let mut worker = this.worker(&source, Reading::Following).await?;
                        Ok(worker.run(Until::Stopped(stop)).await?)
                    })
                };
                (name, std::thread::spawn(run))
            })
            .collect()
    }

    /// Absorbs and commits everything that the sources hold now.
    pub async fn drain(&self) -> Result<Vec<(String, Summary)>, EmbeddedError> {
        let mut done = vec![];
        for source in self.project.sources.values() {
            let mut worker = self.worker(source, Reading::Draining).await?;
            done.push((source.name.clone(), worker.run(Until::End).await?));
        }
        Ok(done)
    }

    async fn worker(&self, source: &Arc<Source>, reading: Reading) -> Result<Worker, EmbeddedError> {
        let time = Some((source.timestamp.as_str(), source.options.max_future));
        let storage = Storage::open(&self.folder.offline().to_string_lossy())?;
        let (events, archive): (Box<dyn EventSource>, _) = match (&source.contract, &source.location, source.format) {
            (Some(contract), _, _) => {
                let schema = event_schema(&source.schema);
                let past = ArchiveReader::open(storage.clone(), &source.name, contract).await?;
                let archive = ArchiveWriter::open(storage.clone(), &source.name, schema, ARCHIVE_ROWS_PER_FILE).await?;
                let log = LogSource::new(&source.name, self.log.clone(), contract.clone(), time)?;
                (Box::new(Archived::new(Box::new(log), past)), Some(archive))
            }
            // Files are their own archive.
            (None, Some(location), _) => {
                let config = files_config(&self.folder.offline(), source, location, reading);
                (Box::new(FileSource::with_columns(&source.name, config, source.schema.clone())?), None)
            }
            _ => return Err(EmbeddedError::UnknownSource(source.name.clone())),
        };
        let dead_letters = DeadLetterWriter::open(storage, &source.name).await?;
        let views = self.project.views_of(&source.name);
        let shared = (self.progress.clone(), self.metrics.clone());
        let letters = Box::new(dead_letters);
        Ok(Worker::new(events, views, self.store.clone(), archive, letters, shared, self.config.clone()))
    }
}

/// The files of a source, numbered as the stream numbered them if it has read them.
fn files_config(offline: &Path, source: &Source, location: &str, reading: Reading) -> FilesConfig {
    FilesConfig {
        location: location.to_owned(),
        format: source.format.map(read_as),
        timestamp: source.timestamp.clone(),
        max_future: source.options.max_future,
        of: source.of.clone().unwrap_or_default(),
        manifest: Some(offline.join("files").join(format!("{}.ndjson", source.name))),
        reading,
        clock: || chrono::Utc::now().timestamp_micros(),
    }
}

/// The events of files, as the stream reads them: what it rejects is left out, and a file that has changed since or is
/// gone is an error.
async fn read_files(source: &Source, config: FilesConfig) -> Result<Vec<RecordBatch>, SourceError> {
    const ROWS: usize = 65_536;
    let mut files = FileSource::with_columns(&source.name, config, source.schema.clone())?;
    let (mut batches, mut rejected, mut reason) = (vec![], 0, None);
    for partition in files.partitions().await? {
        let mut next = 0;
        while let Some(batch) = files.read(partition, next, ROWS).await? {
            next = batch.next_offset;
            batches.push(batch.events);
            rejected += batch.rejects.len();
            reason = reason.or_else(|| batch.rejects.into_iter().next().map(|reject| reject.reason));
        }
    }
    if let Some(first) = reason {
        tracing::warn!(source = source.name, rejected, first, "events are left out that the stream rejects too");
    }
    Ok(batches)
}

/// What one push brings to a partition: where each record stood in the push, and its message.
#[derive(Debug, Clone, Default)]
struct Batch {
    places: Vec<usize>,
    messages: Vec<(i64, Bytes)>,
}

/// What an archive lacks of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub source: String,
    /// Events of the log that are not in the archive.
    pub events: u64,
    /// There is nothing in the archive at all.
    pub empty: bool,
}

/// Those of some sources whose archive under an offline root lacks events of the log. What the stream refused is not
/// missed, so what lies behind the archive's end is decoded to be counted.
pub async fn behind(
    log: &Arc<EventLog>,
    offline: &Path,
    sources: impl IntoIterator<Item = Arc<Source>>,
) -> Result<Vec<Behind>, EmbeddedError> {
    const RECORDS: usize = 8192;
    let storage = Storage::open(&offline.to_string_lossy())?;
    let mut found = vec![];
    for source in sources {
        let Some(contract) = &source.contract else { continue };
        let archived = archived_ranges(&storage, &source.name).await?;
        let time = Some((source.timestamp.as_str(), source.options.max_future));
        let mut events = LogSource::new(&source.name, log.clone(), contract.clone(), time)?;
        let mut missing = 0;
        for partition in events.partitions().await? {
            let mut next = archived.get(&partition).map_or(0, |range| range.end() + 1);
            while let Some(batch) = events.read(partition, next, RECORDS).await? {
                missing += batch.events.num_rows() as u64;
                next = batch.next_offset;
            }
        }
        if missing > 0 {
            found.push(Behind { source: source.name.clone(), events: missing, empty: archived.is_empty() });
        }
    }
    Ok(found)
}

/// A source's past: the archive under an offline root, or the source's own files.
pub async fn event_table(offline: &Path, source: &Source) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let external = |e: Box<dyn std::error::Error + Send + Sync>| DataFusionError::External(e);
    let schema = event_schema(&source.schema);
    match (source.options.connector, &source.location) {
        (Connector::Files, Some(location)) => {
            let config = files_config(offline, source, location, Reading::Looking);
            let batches = read_files(source, config).await.map_err(|e| external(e.into()))?;
            Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
        }
        _ => {
            let storage = Storage::open(&offline.to_string_lossy()).map_err(|e| external(e.into()))?;
            let contract = source.contract.as_ref();
            let contract =
                contract.ok_or_else(|| external(EmbeddedError::UnknownSource(source.name.clone()).into()))?;
            archive_table(&storage, &source.name, contract).await.map_err(|e| external(e.into()))
        }
    }
}
