//! The hand-over: views that lack a part of the source's past fill from it beside the stream, and then join it.
//!
//! Guarantees: the stream goes on meanwhile, for the views that have everything. A view joins it at the very offset below which it has
//! every event: when a commit has made all that was read a part of the past, what the view still lacks of that (no more than came since the commit
//! before) is filled at once, and the next batch finds it there. So no event is lost between past and stream, and none
//! counts twice. A fill that fails is tried again after a pause that grows, and the stream doesn't wait for it. What a view can't evaluate of events that it fills from is counted, and no dead letter: the past keeps the event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::error::StreamError;
use super::fill::{Fill, Gap, Reached};
use super::fold::{Folded, joined};
use super::known::history_id;
use super::share::Writing;
use super::worker::{At, Worker};
use crate::offline::HISTORY;
use crate::online::{ViewId, WriteOutcome};
use crate::plan::FeatureView;

/// A fill that runs beside the stream, one at a time.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    running: Option<JoinHandle<Result<(), StreamError>>>,
    /// What it came to, until that is taken up.
    ended: Option<Result<(), StreamError>>,
    reached: Reached,
    failed: Option<Failed>,
}

/// A fill that can't go on for now.
#[derive(Debug)]
struct Failed {
    /// None once it was told.
    why: Option<StreamError>,
    pause: Duration,
    again: Instant,
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl CatchUp {
    /// Rests for a while, twice as long each time.
    fn fails(&mut self, why: StreamError, now: Instant) {
        let pause = self.failed.as_ref().map_or(FIRST_PAUSE, |failed| (2 * failed.pause).min(LONGEST_PAUSE));
        self.failed = Some(Failed { why: Some(why), pause, again: now + pause });
    }

    fn rests(&self, now: Instant) -> bool {
        self.failed.as_ref().is_some_and(|failed| now < failed.again)
    }

    /// Why it rests, for who doesn't want to wait.
    pub fn failure(&mut self, now: Instant) -> Option<StreamError> {
        self.failed.as_mut().filter(|failed| now < failed.again).and_then(|failed| failed.why.take())
    }

    /// Ends what runs; what it has done so far is stored.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        (self.ended, self.reached) = (None, Reached::default());
    }

    /// Returns once what runs has ended; never, if nothing does. Safe to cancel.
    pub async fn wait(&mut self) {
        match &mut self.running {
            Some(running) => {
                self.ended = Some(joined(running.await));
                self.running = None;
            }
            None if self.ended.is_some() => {}
            None => std::future::pending().await,
        }
    }

    /// What it came to, if it has ended.
    async fn take_ended(&mut self) -> Option<Result<(), StreamError>> {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait().await;
        }
        self.ended.take()
    }

    fn runs(&self) -> bool {
        self.running.is_some() || self.ended.is_some()
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Worker {
    /// Whether a view fills from the past.
    pub(super) fn catches_up(&self) -> bool {
        self.views.iter().any(|view| view.at.values().any(|at| at.filling().is_some()))
    }

    /// Whether a view has all that is past, and waits for the rest of what was read to be.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.pending > 0 && !self.catch_up.runs() && self.catches_up() && self.gaps().is_empty()
    }

    /// What views lack of the past.
    fn gaps(&self) -> Vec<Gap> {
        let past = self.past_ends();
        let of_view = |view: &super::worker::View| -> Vec<Gap> {
            let gap = |(partition, at): (&i32, &At)| {
                let from = at.filling().filter(|from| past.get(partition).is_some_and(|end| from < end))?;
                Some(Gap { view: Arc::clone(&view.fold.view), partition: *partition, from })
            };
            view.at.iter().filter_map(gap).collect()
        };
        self.views.iter().flat_map(of_view).collect()
    }

    /// Takes up what the fill that runs has come to, lets views join the stream that have everything, and fills what is left.
    /// True if something ended.
    pub(super) async fn catch_up(&mut self) -> Result<bool, StreamError> {
        if !self.catches_up() {
            self.succeeded();
            return Ok(false);
        }
        let ended = self.catch_up.take_ended().await;
        self.take_up();
        let advanced = ended.is_some();
        match ended {
            Some(Ok(())) => self.succeeded(),
            Some(Err(error)) => self.failed(error)?,
            None => {}
        }
        self.join().await?;
        if self.catch_up.rests((self.config.clock)()) {
            return Ok(advanced);
        }
        match self.begin_catch_up().await {
            Ok(()) => Ok(advanced),
            Err(error) => self.failed(error).map(|()| advanced),
        }
    }

    /// Fills what is small here and now, and begins with the rest unless something runs.
    async fn begin_catch_up(&mut self) -> Result<(), StreamError> {
        // What could be read before is not left behind for long: after a crash it lacks what came since the last commit.
        let known: Vec<ViewId> =
            self.views.iter().filter(|view| view.missing().is_empty()).map(|view| view.fold.view.id()).collect();
        let mut few = vec![];
        for gap in self.gaps().into_iter().filter(|gap| known.contains(&gap.view.id())) {
            if self.is_small(&gap).await? {
                few.push(gap);
            }
        }
        self.fill_now(few).await?;
        if self.catch_up.runs() {
            return Ok(());
        }
        let gaps = self.gaps();
        if gaps.is_empty() {
            self.succeeded();
            return Ok(());
        }
        self.raise_history(&gaps).await?;
        let (mut fill, metrics) = (self.begin_fill().await?, self.metrics.clone());
        // What is read comes first, and doesn't wait for what is new.
        let (read, new): (Vec<Gap>, Vec<Gap>) = gaps.into_iter().partition(|gap| known.contains(&gap.view.id()));
        self.catch_up.running = Some(tokio::spawn(async move {
            let heard = |view: &FeatureView, folded: &Folded| folded.count(&metrics, &view.name);
            fill.run(read, &heard).await?;
            fill.run(new, &heard).await
        }));
        Ok(())
    }

    /// A fill that may succeed later rests. An error, if the worker must begin again, or end.
    fn failed(&mut self, error: StreamError) -> Result<(), StreamError> {
        // One view that can't fill, now or later, is no reason to end the others'.
        let rests = error.passing() && !error.stale() || matches!(error, StreamError::Removed { .. });
        if !rests {
            return Err(error);
        }
        let source = self.source.name();
        tracing::warn!(source, %error, "views can't be filled; trying again");
        self.metrics.retries.with_label_values(&[source, "fill"]).inc();
        self.progress.set_stuck(source, Some(error.to_string()));
        self.catch_up.fails(error, (self.config.clock)());
        Ok(())
    }

    fn succeeded(&mut self) {
        if self.catch_up.failed.take().is_some() {
            self.progress.set_stuck(self.source.name(), None);
        }
    }

    /// After a commit everything that was read is past: what little views lack of it is filled here and now.
    pub(super) async fn hand_over(&mut self) -> Result<(), StreamError> {
        if self.catch_up.runs() || self.catch_up.rests((self.config.clock)()) {
            return Ok(());
        }
        let gaps = self.gaps();
        for gap in &gaps {
            if !self.is_small(gap).await? {
                return Ok(());
            }
        }
        match self.fill_now(gaps).await {
            Err(error) => self.failed(error),
            done => done,
        }
    }

    /// Whether it is no more than what comes between two commits.
    async fn is_small(&mut self, gap: &Gap) -> Result<bool, StreamError> {
        if gap.partition == HISTORY {
            return Ok(false);
        }
        let end = self.past_ends().get(&gap.partition).copied().unwrap_or(0);
        let events = self.source.between(gap.partition, gap.from, end).await?;
        // A commit is due after a step, which may read a batch more.
        let most = self.config.commit_events + 2 * self.config.max_records;
        Ok(usize::try_from(events).is_ok_and(|events| events <= most))
    }

    async fn fill_now(&mut self, gaps: Vec<Gap>) -> Result<(), StreamError> {
        if gaps.is_empty() {
            return Ok(());
        }
        let (mut fill, metrics) = (self.begin_fill().await?, self.metrics.clone());
        fill.run(gaps, &|view, folded| folded.count(&metrics, &view.name)).await?;
        self.take_up();
        self.join().await
    }

    async fn begin_fill(&self) -> Result<Fill, StreamError> {
        let session = self.session.ok_or_else(|| self.not_begun())?;
        let to = Writing { store: Arc::clone(&self.store), session };
        let past = self.past.open(self.source.name()).await?;
        Ok(Fill::new(to, past, self.past_ends(), self.config.fill.clone(), self.catch_up.reached.clone()))
    }

    fn take_up(&mut self) {
        for view in &mut self.views {
            let id = view.fold.view.id();
            for (partition, at) in &mut view.at {
                if let At::Filling(from) = at
                    && let Some(reached) = self.catch_up.reached.of(&id, *partition)
                {
                    *from = reached.max(*from);
                    view.stored.insert(*partition, *from);
                }
            }
        }
    }

    /// Views that have everything which was read of a partition get the next batch.
    async fn join(&mut self) -> Result<(), StreamError> {
        let history = self.past.history().map_or(i64::MAX, |history| history.end());
        for view in &mut self.views {
            let read = |partition: &i32| match *partition {
                HISTORY => history,
                partition => self.owned.get(&partition).map_or(i64::MAX, |owned| owned.next),
            };
            for (partition, at) in &mut view.at {
                if let At::Filling(next) = *at
                    && next >= read(partition)
                {
                    *at = At::Fed(next);
                    tracing::info!(view = view.fold.view.name, partition, offset = next, "filled; joins the stream");
                }
            }
        }
        self.report_views().await
    }

    /// A view that can't be read yet has as its history all that is past by now: it is read once it has caught up, not as of when
    /// it was new.
    async fn raise_history(&mut self, gaps: &[Gap]) -> Result<(), StreamError> {
        let session = self.session.ok_or_else(|| self.not_begun())?;
        let past = self.past_ends();
        for view in self.views.iter_mut().filter(|view| !view.missing().is_empty()) {
            let id = view.fold.view.id();
            for gap in gaps.iter().filter(|gap| gap.view.id() == id) {
                let (Some(end), Some(known)) = (past.get(&gap.partition), view.history.get(&gap.partition).copied())
                else {
                    continue;
                };
                if known >= *end {
                    continue;
                }
                let history = history_id(&view.fold.view);
                let raised = self.store.set_progress(session, &history, gap.partition, Some(known), *end).await?;
                if let WriteOutcome::Written = raised {
                    view.history.insert(gap.partition, *end);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "catch_up_tests.rs"]
mod tests;
