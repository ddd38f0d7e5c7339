//! A backlog of the source into its views, key by key.
//!
//! Behind a backlog a view meets most of its keys in every batch, and would read and write each of them each time. So what it takes is shared
//! out by key first, and folded when there is much of it.
//!
//! Guarantees: what a view takes is evaluated at once: what it refuses is in the dead letters before the archive has the event. What was taken is folded before
//! the next commit, and no view is said to have it sooner. If it can't be, the worker begins again from what is stored.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::Semaphore;

use super::absorb::VIEWS_AT_ONCE;
use super::by_key::{ByKey, Room};
use super::error::StreamError;
use super::fold::Folded;
use super::share::Writing;
use super::worker::{At, View, Worker, WorkerConfig};
use crate::source::SourceBatch;

/// How many times what makes a backlog is folded together at the most.
const LONG: usize = 4;
/// The part of it that is too little to go on with.
const SHORT: usize = 8;

/// What views have taken, and not folded yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    open: Option<Open>,
    /// Whether some of what is to be folded may be stored already.
    again: bool,
}

#[derive(Debug)]
struct Open {
    room: Arc<Room>,
    since: Instant,
    events: usize,
}

/// Events of one partition that a view has taken.
#[derive(Debug)]
pub(super) struct Taken {
    by_key: ByKey,
    /// The offset after the last of them.
    next: i64,
}

impl Backlog {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Lets go of what was taken.
    pub fn begin_again(&mut self) {
        *self = Self { open: None, again: true };
    }

    /// Where views are to put `events` of those that wait, if they shall not fold them at once.
    fn takes(
        &mut self,
        events: usize,
        waiting: usize,
        config: &WorkerConfig,
    ) -> Result<Option<Arc<Room>>, StreamError> {
        if self.open.is_none() && events + waiting >= config.backlog {
            // Views say when they have much; what they take before they are asked goes to disk only if it is far more.
            let room = Arc::new(Room::new(config.fill.memory.saturating_mul(2))?);
            self.open = Some(Open { room, since: Instant::now(), events: 0 });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        open.events += events;
        Ok(Some(Arc::clone(&open.room)))
    }

    /// Whether what was taken is to be folded, while so many events wait.
    fn is_due(&self, waiting: usize, config: &WorkerConfig) -> bool {
        self.open.as_ref().is_some_and(|open| {
            waiting < config.backlog.div_ceil(SHORT)
                || open.events >= LONG.saturating_mul(config.backlog)
                || open.room.bytes() >= config.fill.memory
                || open.since.elapsed() >= config.commit_every
        })
    }
}

impl View {
    /// The offset from which on it takes events of a partition; none while it fills: what it fills from the archive, it will find there.
    pub fn takes_from(&self, partition: i32) -> Option<i64> {
        let fed = self.at.get(&partition)?.fed()?;
        Some(self.taken.get(&partition).map_or(fed, |taken| taken.next))
    }

    /// Takes events, all that there are below `next`.
    pub fn take(
        &mut self,
        room: &Room,
        partition: i32,
        events: &RecordBatch,
        next: i64,
    ) -> Result<Folded, StreamError> {
        let new = || Taken { by_key: ByKey::new(&self.fold.view, room), next };
        let taken = self.taken.entry(partition).or_insert_with(new);
        taken.next = next;
        taken.by_key.push(events)
    }

    /// Folds what it has taken.
    async fn settle(
        &mut self,
        to: &Writing,
        (most, again): (usize, bool),
        heard: impl Fn(&Folded),
    ) -> Result<(), StreamError> {
        while let Some((partition, Taken { by_key, next })) = self.taken.pop_first() {
            let fresh = !again && self.at.get(&partition) == Some(&At::Fed(0));
            by_key.fold(&mut self.fold, to, (partition, most, fresh), &heard).await?;
            self.at.insert(partition, At::Fed(next));
        }
        Ok(())
    }
}

impl Worker {
    /// Where views are to put batches that were read, if there is a backlog.
    pub(super) async fn backlog(&mut self, batches: &[SourceBatch]) -> Result<Option<Arc<Room>>, StreamError> {
        let events = batches.iter().map(|batch| batch.events.num_rows()).sum();
        let waiting = self.waiting(batches).await?;
        let room = self.backlog.takes(events, waiting, &self.config);
        self.report_taken();
        room
    }

    fn report_taken(&self) {
        let taken = self.backlog.open.as_ref().map_or(0, |open| i64::try_from(open.events).unwrap_or(i64::MAX));
        self.metrics.taken.with_label_values(&[self.source.name()]).set(taken);
    }

    /// Folds what was taken, unless more is to come before.
    pub(super) async fn settle_if_due(&mut self) -> Result<(), StreamError> {
        if !self.backlog.is_open() {
            return Ok(());
        }
        let waiting = self.waiting(&[]).await?;
        if self.backlog.is_due(waiting, &self.config) { self.settle().await } else { Ok(()) }
    }

    /// Folds what was taken.
    pub(super) async fn settle(&mut self) -> Result<(), StreamError> {
        if !self.backlog.is_open() {
            return Ok(());
        }
        let session = self.session.ok_or_else(|| self.not_begun())?;
        let to = Writing { store: Arc::clone(&self.store), session };
        let how = (self.config.fill.records, self.backlog.again);
        let at_once = Arc::new(Semaphore::new(VIEWS_AT_ONCE));
        let (metrics, retained) = (self.metrics.clone(), self.retained.clone());
        let settled = self.each_view(|mut view| {
            let (to, at_once, metrics) = (to.clone(), Arc::clone(&at_once), metrics.clone());
            let told = !retained.contains(&view.fold.view.id());
            async move {
                // Nothing closes it: there is no error.
                let _turn = at_once.acquire().await;
                let name = view.fold.view.name.clone();
                let settled = view
                    .settle(&to, how, |folded| {
                        if told {
                            folded.count(&metrics, &name)
                        }
                    })
                    .await;
                (view, settled)
            }
        });
        let settled = settled.await.into_iter().collect::<Result<(), StreamError>>();
        match &settled {
            Ok(()) => self.backlog = Backlog::default(),
            // What was taken and isn't folded is nowhere but in the source.
            Err(error) => self.begin_again(error),
        }
        self.report_taken();
        settled
    }

    /// How many events wait behind what was read, about.
    async fn waiting(&mut self, read: &[SourceBatch]) -> Result<usize, StreamError> {
        let owned: Vec<(i32, i64)> = self.owned.iter().map(|(partition, owned)| (*partition, owned.next)).collect();
        let mut waiting = 0;
        for (partition, next) in owned {
            let read = read.iter().filter(|batch| batch.partition == partition).map(|batch| batch.next_offset);
            let end = self.source.end_offset(partition).await?;
            waiting += self.source.between(partition, read.fold(next, i64::max), end).await?;
        }
        Ok(usize::try_from(waiting).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stream::FillConfig;

    #[test]
    fn a_backlog_is_taken_until_little_waits_or_much_was_taken() {
        let fill = FillConfig { memory: 1 << 20, ..FillConfig::default() };
        let config =
            WorkerConfig { backlog: 200, fill, commit_every: Duration::from_secs(3600), ..WorkerConfig::default() };
        let mut backlog = Backlog::default();
        assert!(backlog.takes(100, 99, &config).unwrap().is_none() && !backlog.is_due(0, &config));
        assert!(backlog.takes(100, 100, &config).unwrap().is_some());
        assert!(backlog.is_due(24, &config) && !backlog.is_due(25, &config));
        assert!(backlog.takes(1, 0, &config).unwrap().is_some(), "what is open goes on");
        assert!(!backlog.is_due(500, &config));
        assert!(backlog.takes(699, 500, &config).unwrap().is_some() && backlog.is_due(500, &config));
        let mut backlog = Backlog::default();
        assert!(backlog.takes(100, 1000, &config).unwrap().is_some());
        assert!(backlog.is_due(1000, &WorkerConfig { commit_every: Duration::ZERO, ..config }));
    }
}
