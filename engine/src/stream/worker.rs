//! One source's worker: reads it, keeps its views fresh, archives, commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::catch_up::CatchUp;
use super::error::StreamError;
use super::fill::FillConfig;
use super::fold::ViewFold;
use super::past::Past;
use super::progress::Progress;
use crate::metrics::Metrics;
use crate::offline::ArchiveWriter;
use crate::online::{OnlineStore, Session, ViewId};
use crate::plan::FeatureView;
use crate::source::{DeadLetters, EventSource, Reject, SourceError};

#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Events in one batch at the most. Behind a backlog batches are this long; otherwise what is there.
    pub max_records: usize,
    /// A commit is due after this many events …
    pub commit_events: usize,
    /// … or this long after the first event that is not committed.
    pub commit_every: Duration,
    /// Bytes of pieces to keep in memory, for each view.
    pub cache_bytes: usize,
    pub fill: FillConfig,
    /// How long the state of what was served before is kept once the project's own views are: other instances may still serve it.
    pub retire_after: Duration,
    pub clock: fn() -> Instant,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            max_records: 262_144,
            commit_events: 200_000,
            commit_every: Duration::from_secs(10),
            cache_bytes: 64 << 20,
            fill: FillConfig::default(),
            retire_after: Duration::from_secs(600),
            clock: Instant::now,
        }
    }
}

/// How long a worker runs.
#[derive(Debug)]
pub enum Until {
    /// Until everything that the source holds is absorbed and committed, by this instance or others.
    End,
    /// Until the watch turns true; what was read is committed then.
    Stopped(watch::Receiver<bool>),
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub events: u64,
    pub rejected: u64,
    pub commits: u64,
}

/// Keeps the views of one source fresh.
#[derive(Debug)]
pub struct Worker {
    pub(super) source: Box<dyn EventSource>,
    pub(super) views: Vec<View>,
    pub(super) store: Arc<dyn OnlineStore>,
    /// None where the source's files are the archive themselves.
    pub(super) archive: Option<ArchiveWriter>,
    /// What was accepted before.
    pub(super) past: Past,
    pub(super) dead_letters: Box<dyn DeadLetters>,
    pub(super) progress: Arc<Progress>,
    pub(super) metrics: Metrics,
    pub(super) config: WorkerConfig,
    /// None before it knows what is stored, or once that is no longer so.
    pub(super) session: Option<Session>,
    pub(super) owned: BTreeMap<i32, Owned>,
    /// The source's ends when the worker began.
    pub(super) ends: BTreeMap<i32, i64>,
    /// When it last looked at what the store has.
    pub(super) looked: Option<Instant>,
    /// Why it waits, while it does.
    cause: Option<&'static str>,
    pub(super) pending: usize,
    pub(super) pending_since: Option<Instant>,
    pub(super) summary: Summary,
    /// What the next commit adds to it.
    pub(super) uncommitted: Summary,
    /// Dead letters of the batches that are being absorbed, by partition and offset: a batch that fails half way is
    /// absorbed again, and the views that have it already don't fail it twice.
    pub(super) letters: BTreeMap<i32, BTreeMap<i64, Reject>>,
    /// Whether the state of views' earlier versions is gone.
    pub(super) tidied: bool,
    pub(super) catch_up: CatchUp,
    /// Views that are kept fresh for as long as the project's own are not filled.
    pub(super) retained: BTreeSet<ViewId>,
    /// What is to be dropped, and when that was so first.
    pub(super) doomed: Option<(Held, Instant)>,
}

#[derive(Debug)]
pub(super) struct View {
    pub fold: ViewFold,
    /// Of the partitions that the worker owns.
    pub at: BTreeMap<i32, At>,
    /// What the store says of that, of all partitions.
    pub stored: BTreeMap<i32, i64>,
    /// What the source held when the view was new: until the view has absorbed that, its values would be wrong.
    pub history: BTreeMap<i32, i64>,
}

impl View {
    fn new(view: Arc<FeatureView>, cache_bytes: usize) -> Self {
        Self {
            fold: ViewFold::new(view, cache_bytes),
            at: BTreeMap::new(),
            stored: BTreeMap::new(),
            history: BTreeMap::new(),
        }
    }
}

/// Where a view is with a partition: the offset after the last event that it has absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The stream feeds it.
    Fed(i64),
    /// It fills from the past first.
    Filling(i64),
}

impl At {
    pub fn fed(self) -> Option<i64> {
        match self {
            Self::Fed(next) => Some(next),
            Self::Filling(_) => None,
        }
    }

    pub fn filling(self) -> Option<i64> {
        match self {
            Self::Filling(next) => Some(next),
            Self::Fed(_) => None,
        }
    }

    pub fn next(self) -> i64 {
        match self {
            Self::Fed(next) | Self::Filling(next) => next,
        }
    }
}

/// How far versions of views are, by partition.
pub(super) type Held = BTreeMap<ViewId, BTreeMap<i32, i64>>;

/// A partition that the worker reads.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    /// Offset of the next event to read.
    pub next: i64,
    /// Offset after the last event that is durable online and archived, as the store has it.
    pub committed: i64,
}

impl Worker {
    /// A worker that has not looked at anything yet: it begins where the store says that it stopped. A view that can't
    /// run yet, since a table that it joins has no files, is left out: it fills when it can.
    pub fn new(
        source: Box<dyn EventSource>,
        views: Vec<Arc<FeatureView>>,
        store: Arc<dyn OnlineStore>,
        (archive, past): (Option<ArchiveWriter>, Past),
        dead_letters: Box<dyn DeadLetters>,
        shared: (Arc<Progress>, Metrics),
        config: WorkerConfig,
    ) -> Self {
        let (progress, metrics) = shared;
        let views = views.into_iter().filter(|view| !view.fingerprint.is_empty());
        let views = views.map(|view| View::new(view, config.cache_bytes));
        Self {
            source,
            views: views.collect(),
            store,
            archive,
            past,
            dead_letters,
            progress,
            metrics,
            config,
            session: None,
            owned: BTreeMap::new(),
            ends: BTreeMap::new(),
            looked: None,
            cause: None,
            pending: 0,
            pending_since: None,
            summary: Summary::default(),
            uncommitted: Summary::default(),
            letters: BTreeMap::new(),
            tidied: false,
            catch_up: CatchUp::default(),
            retained: BTreeSet::new(),
            doomed: None,
        }
    }

    /// Keeps earlier versions of views fresh too, until every view of the project is filled.
    pub fn retain(mut self, views: Vec<Arc<FeatureView>>) -> Self {
        self.retained = views.iter().map(|view| view.id()).collect();
        let views = views.into_iter().map(|view| View::new(view, self.config.cache_bytes));
        self.views.extend(views);
        self
    }

    /// Runs to the end. A store, disk or source that fails stalls the worker, which tries again; a view whose state or
    /// definition is broken ends it. What is no longer as the worker remembers it, it reads anew.
    pub async fn run(&mut self, mut until: Until) -> Result<Summary, StreamError> {
        loop {
            let worked = self.work(&until).await;
            match worked {
                Ok(Worked::Done) => return Ok(self.summary.clone()),
                Ok(Worked::Advanced) => self.goes_on(),
                Ok(Worked::Idle) => {
                    self.goes_on();
                    self.wait(&mut until).await;
                }
                Err(error) => {
                    if error.stale() {
                        self.begin_again(&error);
                    }
                    let stopping = matches!(&until, Until::Stopped(stop) if *stop.borrow());
                    if stopping && !error.lasts() {
                        // What is not committed is read again by whoever comes next.
                        return Ok(self.summary.clone());
                    }
                    if stopping || !error.passing() || (matches!(until, Until::End) && error.lasts()) {
                        return Err(error);
                    }
                    self.stalled(&error, &mut until).await;
                }
            }
        }
    }

    async fn work(&mut self, until: &Until) -> Result<Worked, StreamError> {
        if matches!(until, Until::Stopped(stop) if *stop.borrow()) {
            self.commit().await?;
            return Ok(Worked::Done);
        }
        if self.step().await? {
            return Ok(Worked::Advanced);
        }
        if let Some(error) = self.source.trouble() {
            return Err(error.into());
        }
        if matches!(until, Until::End)
            && let Some(error) = self.catch_up.failure((self.config.clock)())
        {
            return Err(error);
        }
        if matches!(until, Until::End) && self.source.exhausted().await? {
            self.commit().await?;
            let filled = !self.catches_up() && self.views.iter().all(|view| view.missing().is_empty());
            if filled && self.others_are_done().await? {
                self.tidy().await?;
                return Ok(Worked::Done);
            }
        }
        Ok(Worked::Idle)
    }

    /// Waits for events, for the next commit, or to be stopped.
    async fn wait(&mut self, until: &mut Until) {
        let due = self.pending_since.map(|since| self.config.commit_every.saturating_sub(since.elapsed()));
        let due = due.unwrap_or(Duration::MAX).min(self.looks_again_in());
        let timer = tokio::time::sleep(due);
        let stopped = async {
            match until {
                Until::Stopped(stop) => stop.changed().await.unwrap_or_default(),
                Until::End => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.source.wait() => {}
            () = self.catch_up.wait() => {}
            () = stopped => {}
            () = timer => {}
        }
    }

    pub(super) fn name(&self) -> String {
        self.source.name().to_owned()
    }

    /// Reads and absorbs one batch of each partition, and commits if it is time. True if there was anything.
    pub(super) async fn step(&mut self) -> Result<bool, StreamError> {
        let mut advanced = false;
        let partitions = self.source.partitions().await?;
        self.own(&partitions).await?;
        advanced |= self.catch_up().await?;
        let (mut batches, mut events) = (vec![], 0);
        for (place, partition) in partitions.iter().enumerate() {
            let Some(from) = self.owned.get(partition).map(|owned| owned.next) else { continue };
            let Some(batch) = self.source.read(*partition, from, self.config.max_records).await? else { continue };
            advanced = true;
            events += batch.events.num_rows();
            batches.push(batch);
            // Short ones go together, so that the views wait for each other once; long ones would take memory.
            if events >= self.config.max_records {
                // The next one is decoded meanwhile.
                if let Some(next) = partitions.get(place + 1).or(partitions.first()) {
                    let here = batches.iter().find(|batch| batch.partition == *next).map(|batch| batch.next_offset);
                    if let Some(from) = here.or(self.owned.get(next).map(|owned| owned.next)) {
                        self.source.read_ahead(*next, from, self.config.max_records);
                    }
                }
                self.absorb(&std::mem::take(&mut batches)).await?;
                events = 0;
            }
        }
        if !batches.is_empty() {
            self.absorb(&batches).await?;
        }
        for partition in partitions {
            self.report_lag(partition).await?;
        }
        let due = self.pending >= self.config.commit_events
            || self.pending_since.is_some_and(|since| since.elapsed() >= self.config.commit_every);
        if due || self.waits_for_commit() {
            self.commit().await?;
        }
        self.look_around().await?;
        Ok(advanced)
    }

    pub(super) fn not_begun(&self) -> StreamError {
        SourceError::Internal { source_name: self.name(), what: "the worker has not begun".to_owned() }.into()
    }

    fn goes_on(&mut self) {
        if let Some(cause) = self.cause.take() {
            self.metrics.stalled.with_label_values(&[self.source.name(), cause]).set(0);
            self.progress.stall(&self.name(), None);
            tracing::info!(source = self.source.name(), "goes on");
        }
    }

    async fn stalled(&mut self, error: &StreamError, until: &mut Until) {
        const PAUSE: Duration = Duration::from_millis(500);
        let cause = error.cause();
        if let Some(other) = self.cause.replace(cause).filter(|other| *other != cause) {
            self.metrics.stalled.with_label_values(&[self.source.name(), other]).set(0);
        }
        self.metrics.stalled.with_label_values(&[self.source.name(), cause]).set(1);
        tracing::warn!(source = self.source.name(), %error, "stalled; trying again");
        self.metrics.retries.with_label_values(&[self.source.name(), cause]).inc();
        self.progress.stall(&self.name(), Some(error.to_string()));
        match until {
            Until::Stopped(stop) => {
                let _ = tokio::time::timeout(PAUSE, stop.changed()).await;
            }
            Until::End => tokio::time::sleep(PAUSE).await,
        }
    }
}

enum Worked {
    Advanced,
    Idle,
    Done,
}

/// Under which the store keeps a source's committed offsets.
pub fn source_id(source: &str) -> ViewId {
    ViewId { name: format!("@{source}"), fingerprint: "committed".to_owned() }
}
