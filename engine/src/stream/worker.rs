//! One source's worker: reads it, keeps its views fresh, archives, commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::StreamError;
use super::events::{dead_letter, since};
use super::fold::ViewFold;
use super::progress::{Progress, ViewProgress};
use crate::metrics::Metrics;
use crate::offline::{ArchiveWriter, DeadLetterWriter};
use crate::online::{OnlineStore, ViewId};
use crate::plan::FeatureView;
use crate::source::{EventSource, Reject, SourceBatch};

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
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { max_records: 8192, commit_events: 200_000, commit_every: Duration::from_secs(10), cache_bytes: 64 << 20 }
    }
}

/// How long a worker runs.
#[derive(Debug)]
pub enum Until {
    /// Until everything that the source holds is absorbed and committed.
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
    source: Box<dyn EventSource>,
    views: Vec<View>,
    store: Arc<dyn OnlineStore>,
    /// None where the source's files are the archive themselves.
    archive: Option<ArchiveWriter>,
    dead_letters: DeadLetterWriter,
    progress: Arc<Progress>,
    metrics: Metrics,
    config: WorkerConfig,
    /// Offset of the next event to read, by partition.
    next: BTreeMap<i32, i64>,
    /// Offset after the last event that is durable online and archived.
    committed: BTreeMap<i32, i64>,
    pending: usize,
    pending_since: Option<Instant>,
    summary: Summary,
    /// Dead letters of the batches that are being absorbed, by partition and offset: a batch that fails half way is
    /// absorbed again, and the views that have it already don't fail it twice.
    letters: BTreeMap<i32, BTreeMap<i64, Reject>>,
    /// Whether the state of views' earlier versions is gone.
    tidied: bool,
}

#[derive(Debug)]
struct View {
    fold: ViewFold,
    /// Offset after the last event that it has absorbed.
    next: BTreeMap<i32, i64>,
    /// What the source held when the view was new: until it has absorbed that, its values would be wrong.
    history: BTreeMap<i32, i64>,
}

impl View {
    /// What each partition still has of its history: from one offset to another.
    fn missing(&self) -> Vec<(i32, i64, i64)> {
        let held = |partition: &i32| self.next.get(partition).copied().unwrap_or(0);
        let missing = self.history.iter().map(|(partition, end)| (*partition, held(partition), *end));
        missing.filter(|(_, held, end)| held < end).collect()
    }
}

impl Worker {
    /// Opens the worker where the store says that it stopped. A view that can't run yet, since a table that it joins has
    /// no files, is left out: it fills when it can.
    pub async fn new(
        mut source: Box<dyn EventSource>,
        views: Vec<Arc<FeatureView>>,
        store: Arc<dyn OnlineStore>,
        archive: Option<ArchiveWriter>,
        dead_letters: DeadLetterWriter,
        shared: (Arc<Progress>, Metrics),
        config: WorkerConfig,
    ) -> Result<Self, StreamError> {
        let committed = store.progress(&source_id(source.name())).await?;
        let mut opened = vec![];
        for view in views.into_iter().filter(|view| !view.fingerprint.is_empty()) {
            let next = store.progress(&view.id()).await?;
            let mut history = store.progress(&history_id(&view)).await?;
            if next.is_empty() && history.is_empty() {
                history = ends(source.as_mut()).await?;
                for (partition, end) in &history {
                    store.set_progress(&history_id(&view), *partition, *end).await?;
                }
            }
            opened.push(View { fold: ViewFold::new(view, config.cache_bytes), next, history });
        }
        let (progress, metrics) = shared;
        let mut worker = Self {
            source,
            views: opened,
            store,
            archive,
            dead_letters,
            progress,
            metrics,
            config,
            next: BTreeMap::new(),
            committed,
            pending: 0,
            pending_since: None,
            summary: Summary::default(),
            letters: BTreeMap::new(),
            tidied: false,
        };
        // Whoever asks whether the platform is ready must see the backlog from the first moment.
        for partition in worker.source.partitions().await? {
            worker.report_lag(partition).await?;
        }
        worker.check_log().await?;
        worker.report_views().await?;
        Ok(worker)
    }

    /// Runs to the end. A store, disk or source that fails stalls the worker, which tries again; a view whose state or
    /// definition is broken ends it.
    pub async fn run(&mut self, mut until: Until) -> Result<Summary, StreamError> {
        loop {
            let advanced = match self.step().await {
                Ok(advanced) => {
                    self.progress.stall(&self.name(), None);
                    advanced
                }
                Err(error) if error.passing() && matches!(until, Until::Stopped(_)) => {
                    self.stalled(&error, &mut until).await;
                    true
                }
                Err(error) => return Err(error),
            };
            let stop = match &until {
                Until::End => !advanced,
                Until::Stopped(stop) => *stop.borrow(),
            };
            if stop {
                self.commit().await?;
                return Ok(self.summary.clone());
            }
            if !advanced && let Until::Stopped(stop) = &mut until {
                let due = self.pending_since.map(|since| self.config.commit_every.saturating_sub(since.elapsed()));
                let timer = async {
                    match due {
                        Some(due) => tokio::time::sleep(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.source.wait() => {}
                    _ = stop.changed() => {}
                    () = timer => {}
                }
            }
        }
    }

    fn name(&self) -> String {
        self.source.name().to_owned()
    }

    /// Reads and absorbs one batch of each partition, and commits if it is time. True if there was anything.
    async fn step(&mut self) -> Result<bool, StreamError> {
        let mut advanced = false;
        for partition in self.source.partitions().await? {
            let from = self.position(partition);
            if let Some(batch) = self.source.read(partition, from, self.config.max_records).await? {
                self.absorb(&batch).await?;
                self.next.insert(partition, batch.next_offset);
                advanced = true;
            }
            self.report_lag(partition).await?;
        }
        let due = self.pending >= self.config.commit_events
            || self.pending_since.is_some_and(|since| since.elapsed() >= self.config.commit_every);
        if due {
            self.commit().await?;
        }
        Ok(advanced)
    }

    /// The next offset to read: where the archive and every view have what lies before it. The archive is asked itself:
    /// files that are gone since the commit come back from the log.
    fn position(&self, partition: i32) -> i64 {
        if let Some(next) = self.next.get(&partition) {
            return *next;
        }
        let held = |next: &BTreeMap<i32, i64>| next.get(&partition).copied().unwrap_or(0);
        let archived = self.archive.as_ref().map(|archive| held(&archive.durable()));
        let committed = held(&self.committed);
        self.views.iter().map(|v| held(&v.next)).chain(archived).fold(committed, i64::min)
    }

    async fn absorb(&mut self, batch: &SourceBatch) -> Result<(), StreamError> {
        let timer = self.metrics.batch_seconds.start_timer();
        let source = self.source.name().to_owned();
        let archived = self.committed.get(&batch.partition).copied().unwrap_or(0);
        let letters = self.letters.entry(batch.partition).or_default();
        for reject in batch.rejects.iter().filter(|r| r.offset >= archived) {
            letters.entry(reject.offset).or_insert_with(|| reject.clone());
        }
        for view in &mut self.views {
            let next = view.next.get(&batch.partition).copied().unwrap_or(0);
            if batch.next_offset <= next {
                continue;
            }
            let events = since(&batch.events, next, batch.first_offset)?;
            let folded = view.fold.apply(self.store.as_ref(), batch.partition, &events).await?;
            view.next.insert(batch.partition, batch.next_offset);
            let name = view.fold.view.name.as_str();
            let count =
                |outcome: &str, n: usize| self.metrics.view_events.with_label_values(&[name, outcome]).inc_by(n as u64);
            count("folded", folded.counts.folded);
            count("late", folded.counts.late);
            count("duplicate", folded.counts.duplicate);
            count("replayed", folded.counts.skipped);
            count("null_key", folded.null_keys);
            count("failed", folded.failed.len());
            for failed in folded.failed.iter().filter(|f| f.offset >= archived) {
                dead_letter(letters, name, failed, &batch.events)?;
            }
        }
        let fresh = since(&batch.events, archived, batch.first_offset)?;
        if let Some(archive) = &mut self.archive {
            archive.append(batch.partition, &batch.events, batch.next_offset).await?;
        }
        let rejects: Vec<Reject> = self.letters.remove(&batch.partition).unwrap_or_default().into_values().collect();
        self.summary.events += fresh.num_rows() as u64;
        self.summary.rejected += rejects.len() as u64;
        self.metrics.events.with_label_values(&[&source]).inc_by(fresh.num_rows() as u64);
        self.metrics.rejected.with_label_values(&[&source]).inc_by(rejects.len() as u64);
        self.dead_letters.append(batch.partition, &rejects);
        self.pending += fresh.num_rows() + rejects.len() + usize::from(fresh.num_rows() == 0);
        self.pending_since.get_or_insert_with(Instant::now);
        timer.observe_duration();
        self.report_views().await
    }

    /// Makes everything absorbed durable: archive and dead letters first, then the state, then the offsets with it.
    async fn commit(&mut self) -> Result<(), StreamError> {
        if self.pending == 0 {
            return Ok(());
        }
        let timer = self.metrics.commit_seconds.start_timer();
        if let Some(archive) = &mut self.archive {
            archive.flush().await?;
        }
        self.dead_letters.flush().await?;
        for view in &self.views {
            for (partition, next) in &view.next {
                self.store.set_progress(&view.fold.view.id(), *partition, *next).await?;
            }
        }
        let id = source_id(self.source.name());
        let mut committed = self.committed.clone();
        for (partition, next) in &self.next {
            let held = committed.entry(*partition).or_insert(0);
            *held = (*held).max(*next);
            self.store.set_progress(&id, *partition, *held).await?;
        }
        self.store.flush().await?;
        for (partition, next) in &committed {
            self.metrics.committed.with_label_values(&[self.source.name(), &partition.to_string()]).set(*next);
        }
        self.committed = committed;
        self.pending = 0;
        self.pending_since = None;
        self.summary.commits += 1;
        timer.observe_duration();
        self.tidy().await
    }

    /// Forgets the earlier versions of views that are filled: nobody reads them any more.
    async fn tidy(&mut self) -> Result<(), StreamError> {
        if self.tidied || self.views.iter().any(|view| !view.missing().is_empty()) {
            return Ok(());
        }
        let current: Vec<ViewId> =
            self.views.iter().flat_map(|v| [v.fold.view.id(), history_id(&v.fold.view)]).collect();
        for id in self.store.views().await? {
            if !current.contains(&id) && current.iter().any(|current| current.name == id.name) {
                self.store.drop_view(&id).await?;
            }
        }
        self.tidied = true;
        Ok(())
    }

    /// A view is filled once it has absorbed everything that the source held when the view was new.
    async fn report_views(&mut self) -> Result<(), StreamError> {
        for view in &self.views {
            let mut missing = BTreeMap::new();
            for (partition, from, to) in view.missing() {
                missing.insert(partition, self.source.between(partition, from, to).await?);
            }
            let name = &view.fold.view.name;
            self.metrics.filling.with_label_values(&[name]).set(i64::from(!missing.is_empty()));
            self.progress.set_view(name, ViewProgress { missing });
        }
        Ok(())
    }

    /// New events in a log that was emptied would have old offsets, and be skipped in silence.
    async fn check_log(&mut self) -> Result<(), StreamError> {
        let mut held = self.archive.as_ref().map(ArchiveWriter::durable).unwrap_or_default();
        for (partition, committed) in &self.committed {
            let held = held.entry(*partition).or_insert(0);
            *held = (*held).max(*committed);
        }
        for (partition, held) in held {
            let end = self.source.end_offset(partition).await?;
            if held > end {
                return Err(StreamError::LogBehind { source_name: self.name(), partition, held, end });
            }
        }
        Ok(())
    }

    async fn report_lag(&mut self, partition: i32) -> Result<(), StreamError> {
        let end = self.source.end_offset(partition).await?;
        let lag = self.source.between(partition, self.position(partition), end).await?;
        self.progress.set_lag(self.source.name(), partition, lag);
        self.metrics.lag.with_label_values(&[self.source.name(), &partition.to_string()]).set(lag);
        Ok(())
    }

    async fn stalled(&mut self, error: &StreamError, until: &mut Until) {
        const PAUSE: Duration = Duration::from_millis(500);
        tracing::warn!(source = self.source.name(), %error, "stalled; trying again");
        self.metrics.retries.with_label_values(&[self.source.name(), error.cause()]).inc();
        self.progress.stall(&self.name(), Some(error.to_string()));
        if let Until::Stopped(stop) = until {
            let _ = tokio::time::timeout(PAUSE, stop.changed()).await;
        }
    }
}

/// The offset after the last event that each partition holds now.
async fn ends(source: &mut dyn EventSource) -> Result<BTreeMap<i32, i64>, StreamError> {
    let mut ends = BTreeMap::new();
    for partition in source.partitions().await? {
        ends.insert(partition, source.end_offset(partition).await?);
    }
    Ok(ends)
}

/// Under which the store keeps what a source held when a view was new.
fn history_id(view: &FeatureView) -> ViewId {
    ViewId { name: format!("@history of {}", view.name), fingerprint: view.fingerprint.clone() }
}

/// Under which the store keeps a source's committed offsets.
pub fn source_id(source: &str) -> ViewId {
    ViewId { name: format!("@{source}"), fingerprint: "committed".to_owned() }
}
