//! One process of the platform: where its events come from, where its timelines live, and the workers between them.
//!
//! Embedded, with nothing else installed, everything is in one folder:
//!
//! ```text
//! <folder>/log.redb       events, durable before a push is answered
//! <folder>/online.redb    timelines
//! <folder>/offline/       archive/ and dead-letters/, ordinary Parquet and NDJSON files; may be elsewhere, in an object store too
//! ```
//!
//! In production events are in Kafka and timelines in Redis, and as many processes as one likes share them; the archive
//! is what they have in common. Either service may also be used without the other.
//!
//! Same engine and same guarantees either way: kill it at any moment, start it again, and nothing is lost or counted
//! twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::future::join_all;
use tokio::sync::watch;

use crate::catalog::Source;
use crate::metrics::Metrics;
use crate::offline::{ARCHIVE_ROWS_PER_FILE, ArchiveWriter, DeadLetterWriter, OfflineError, Storage};
use crate::online::{EmbeddedStore, OnlineStore, RedisConfig, StoreError};
use crate::plan::Project;
use crate::request::Reader;
use crate::source::{
    DeadLetters, EventLog, EventSource, FileSource, LogError, LogSource, RegistryError, SourceError, event_schema,
    files::Reading, kafka::KafkaError,
};
use crate::stream::{Progress, StreamError, Summary, Until, VIEWS_AT_ONCE, Worker, WorkerConfig};

mod files_table;
mod kafka;
mod load;
mod past;
mod push;
mod release;
mod serve;

pub use kafka::{Kafka, KafkaSettings};
pub use load::load;
pub use past::{Behind, behind, event_table};
pub use push::{Datum, Intake, Pushed};
pub use release::views_that_need_all;

use past::{files_config, stream_past};
use release::Release;

/// Bytes of events that a source holds until they are folded, unless the platform's memory is limited.
const SOURCE_BYTES: usize = 64 << 20;

/// Where things are in a data folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    offline: String,
}

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let offline = path.join("offline").to_string_lossy().into_owned();
        Self { path, offline }
    }

    /// With archive, dead letters and snapshots elsewhere: in another folder, or under the URL of an object store.
    pub fn with_offline(self, location: impl Into<String>) -> Self {
        Self { offline: location.into(), ..self }
    }

    fn make(&self) -> Result<(), PlatformError> {
        std::fs::create_dir_all(&self.path).map_err(|source| PlatformError::Folder { path: self.path.clone(), source })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root of archive, dead letters and snapshots: a folder, or a URL.
    pub fn offline(&self) -> &str {
        &self.offline
    }

    /// Which files the sources that are files have read. Beside the files themselves and never in an object store: one
    /// process writes it, line by line.
    fn files(&self) -> PathBuf {
        self.path.join("offline").join("files")
    }

    /// The event log, if there is one. One process at a time has it open.
    pub fn open_log(&self) -> Result<Option<Arc<EventLog>>, LogError> {
        self.log().exists().then(|| EventLog::open(self.log()).map(Arc::new)).transpose()
    }

    fn log(&self) -> PathBuf {
        self.path.join("log.redb")
    }

    fn online(&self) -> PathBuf {
        self.path.join("online.redb")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
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
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("view {0} can't be filled: the files of a dimension table that it joins are missing")]
    NotLoaded(String),
    #[error("source {0}: the files of its history were not looked up")]
    HistoryNotOpen(String),
    #[error("no source `{0}`")]
    UnknownSource(String),
    #[error("source `{0}` reads files: events can't be pushed to it")]
    NotPushable(String),
    #[error("the worker of source {0} ended abnormally")]
    Worker(String),
}

/// Services that stand in for the folder's files.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// In place of the embedded log.
    pub kafka: Option<KafkaSettings>,
    /// In place of the embedded store.
    pub redis: Option<RedisConfig>,
}

/// Where a platform's events are.
#[derive(Debug)]
pub enum Events {
    Log(Arc<EventLog>),
    Kafka(Box<Kafka>),
}

#[derive(Debug)]
pub struct Platform {
    pub project: Arc<Project>,
    pub folder: Folder,
    pub intake: Intake,
    pub store: Arc<dyn OnlineStore>,
    pub progress: Arc<Progress>,
    pub metrics: Metrics,
    pub config: WorkerConfig,
    /// What was live when the process started, if that is another version of the project.
    previous: Option<Arc<Project>>,
    /// The project's files; none if they can't be read.
    release: Option<Release>,
    /// Bytes of events that a source holds until they are folded.
    source_bytes: usize,
}

impl Platform {
    /// Opens the folder, or makes it. One process at a time holds it.
    pub fn embedded(project: Arc<Project>, folder: Folder) -> Result<Self, PlatformError> {
        folder.make()?;
        let events = Events::Log(Arc::new(EventLog::open(folder.log())?));
        let store: Arc<dyn OnlineStore> = Arc::new(EmbeddedStore::open(folder.online())?);
        Self::over(project, folder, events, store)
    }

    /// With services in place of the folder's files. Connects to Redis; Kafka is joined when a worker starts.
    pub async fn open(project: Arc<Project>, folder: Folder, services: Services) -> Result<Self, PlatformError> {
        folder.make()?;
        let events = match services.kafka {
            Some(settings) => Events::Kafka(Box::new(Kafka::new(settings)?)),
            None => Events::Log(Arc::new(EventLog::open(folder.log())?)),
        };
        let store = load::open_store(&folder, services.redis.as_ref()).await?;
        Self::over(project, folder, events, store)
    }

    fn over(
        project: Arc<Project>,
        folder: Folder,
        events: Events,
        store: Arc<dyn OnlineStore>,
    ) -> Result<Self, PlatformError> {
        let metrics = Metrics::new()?;
        let (progress, config) = (Arc::default(), WorkerConfig::default());
        let intake = Intake { project: project.clone(), events };
        let release =
            Release::of(&project).inspect_err(|error| tracing::warn!(%error, "the definitions can't be kept")).ok();
        let (previous, source_bytes) = (None, SOURCE_BYTES);
        Ok(Self { project, folder, intake, store, progress, metrics, config, previous, release, source_bytes })
    }

    /// Bounds what the workers keep in memory: timelines of the views, events that wait, and by its length what a batch needs
    /// while it is folded; the allocator's own and what the clients of Kafka and the store hold come on top.
    pub fn limit_memory(&mut self, bytes: usize) {
        /// Of an event in one view, about, while a batch is folded.
        const ROW: usize = 80;
        let views = self.project.views.len().max(1);
        let sources = self.project.sources.len().max(1);
        // Behind a backlog a view meets all its keys in turn, and a cache that doesn't hold all of them holds none that is met next: what
        // makes batches longer saves more.
        self.config.cache_bytes = bytes / 4 / views;
        self.source_bytes = bytes / 2 / sources;
        let records = |views: usize| (bytes / 8 / views / ROW).clamp(1024, WorkerConfig::default().max_records);
        self.config.max_records = records(views.min(VIEWS_AT_ONCE));
        // A fill folds into all views at once, while the stream feeds others.
        self.config.fill.records = records(views);
        self.config.fill.memory = bytes / 8;
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.store.clone())
    }

    /// A worker for each source, each on threads of its own, so that a batch never delays a request.
    pub fn start(
        self: &Arc<Self>,
        stop: &watch::Receiver<bool>,
    ) -> Vec<(String, JoinHandle<Result<Summary, PlatformError>>)> {
        let sources: Vec<Arc<Source>> = self.project.sources.values().cloned().collect();
        sources
            .into_iter()
            .map(|source| {
                let (this, stop, name) = (self.clone(), stop.clone(), source.name.clone());
                let run = move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread()
                        .thread_name(format!("stream-{}", source.name))
                        .enable_all()
                        .build()
                        .map_err(|source| PlatformError::Folder { path: this.folder.path().into(), source })?;
                    runtime.block_on(async {
                        let mut worker = this.worker(&source, Reading::Following).await?;
                        Ok(worker.run(Until::Stopped(stop)).await?)
                    })
                };
                (name, std::thread::spawn(run))
            })
            .collect()
    }

    /// Absorbs and commits everything that the sources hold now, all of them at once: to begin and to end is mostly waiting.
    pub async fn drain(&self) -> Result<Vec<(String, Summary)>, PlatformError> {
        let drains = self.project.sources.values().map(async |source| {
            let mut worker = self.worker(source, Reading::Draining).await?;
            Ok((source.name.clone(), worker.run(Until::End).await?))
        });
        // All come to their end, also when one fails.
        let done = join_all(drains).await.into_iter().collect::<Result<Vec<_>, PlatformError>>()?;
        if self.filled() {
            self.publish().await;
        }
        Ok(done)
    }

    async fn worker(&self, source: &Arc<Source>, reading: Reading) -> Result<Worker, PlatformError> {
        let storage = Storage::open(self.folder.offline())?;
        let (events, archive): (Box<dyn EventSource>, _) = match (&source.contract, &source.location) {
            (Some(contract), _) => {
                let schema = event_schema(&source.schema);
                let archive = ArchiveWriter::open(storage.clone(), &source.name, schema, ARCHIVE_ROWS_PER_FILE).await?;
                let now: Box<dyn EventSource> = match &self.intake.events {
                    Events::Log(log) => {
                        let time = Some((source.timestamp.as_str(), source.options.max_future));
                        Box::new(LogSource::new(&source.name, log.clone(), contract.clone(), time)?)
                    }
                    Events::Kafka(kafka) => {
                        Box::new(kafka.source(source, contract.clone(), self.source_bytes, self.metrics.clone())?)
                    }
                };
                (now, Some(archive))
            }
            // Files are their own archive.
            (None, Some(location)) => {
                let config = files_config(&self.folder, source, location, reading);
                (Box::new(FileSource::with_columns(&source.name, config, source.schema.clone())?), None)
            }
            _ => return Err(PlatformError::UnknownSource(source.name.clone())),
        };
        let letters: Box<dyn DeadLetters> = match &self.intake.events {
            Events::Kafka(kafka) if source.contract.is_some() => Box::new(kafka.dead_letters(source).await?),
            _ => Box::new(DeadLetterWriter::open(storage, &source.name).await?),
        };
        let views = self.project.views_of(&source.name);
        let shared = (self.progress.clone(), self.metrics.clone());
        let kept = (archive, stream_past(&self.folder, source, Reading::Looking)?);
        let worker = Worker::new(events, views, self.store.clone(), kept, letters, shared, self.config.clone());
        Ok(worker.retain(self.retained(source).await?))
    }
}
