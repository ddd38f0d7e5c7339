//! Snapshots: a view's values for every entity, at the end of each of some dates.
//!
//! Guarantees: each (view, date) is a file of its own, whole or not there, and is made once: a run that was interrupted
//! anywhere goes on where it was. A file of another version of the view is made again, and so is every one if it is asked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{Days, NaiveDate};
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::object_store;
use datafusion::parquet;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::metadata::KeyValue;
use futures::channel::mpsc;
use futures::{StreamExt, TryStreamExt, stream};
use tidemark_engine::batch::{
    Entities, SNAPSHOT_TIME, entities, session, session_within, snapshot_plan, snapshot_schema, snapshot_times,
};
use tidemark_engine::offline::{Past, Storage};
use tidemark_engine::plan::{FeatureView, Project};
use tidemark_engine::platform::{Folder, event_table};

use crate::build::{read, unknown};
use crate::encoding::properties;
use crate::{Error, Result};

const FINGERPRINT: &str = "tidemark.view.fingerprint";

/// Dates whose values are computed in one pass over the events.
const AT_ONCE: usize = 8;

/// What to make.
#[derive(Debug, Clone)]
pub struct Backfill {
    pub view: String,
    /// The first date and the last.
    pub from: NaiveDate,
    pub to: NaiveDate,
    /// Passes that run at once.
    pub parallel: usize,
    /// Makes again what is there.
    pub force: bool,
    /// Bytes of memory that the joins and sorts of a pass share.
    pub memory: Option<usize>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// So many dates are to be made, and so many are there already.
    Begun { dates: usize, there: usize },
    /// A date was made.
    Made { date: NaiveDate, rows: u64, bytes: u64 },
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Made {
    pub dates: usize,
    /// Dates that were there already.
    pub there: usize,
    pub rows: u64,
    pub bytes: u64,
    pub elapsed: Duration,
}

/// Makes the snapshots that are missing, beside the archive that they are made from; `step` hears of each as it is done.
pub async fn backfill(
    project: &Project,
    folder: &Folder,
    what: &Backfill,
    step: &mut (dyn FnMut(&Step) + Send),
) -> Result<Made> {
    let started = Instant::now();
    let view = view(project, &what.view)?;
    let storage = Storage::open(folder.offline())?;
    if view.schema.field_with_name(SNAPSHOT_TIME).is_ok() {
        let cause =
            format!("it has a column {SNAPSHOT_TIME}, as every snapshot has; hint: give the view's another name");
        return Err(Error::Run { what: format!("view {}", view.name), cause });
    }
    let job = Job { view: view.clone(), storage, memory: what.memory };
    let days = what.from.iter_days().take_while(|date| *date <= what.to);
    let mut todo: Vec<NaiveDate> = days.collect();
    let dates = todo.len();
    if !what.force {
        let there = job.made(what.from, what.to).await?;
        todo.retain(|date| !there.contains(date));
    }
    let mut made = Made { there: dates - todo.len(), ..Made::default() };
    step(&Step::Begun { dates: todo.len(), there: made.there });
    if !todo.is_empty() {
        let failed = |e| Error::Events { source_name: view.source.name.clone(), source: e };
        let past = event_table(folder, &view.source).await.map_err(failed)?;
        check_held(view, &past, &todo)?;
        let entities = entities(&job.session()?, view, past.table.clone()).await.map_err(job.run())?;
        let (done, mut steps) = mpsc::unbounded();
        let passes = stream::iter(todo.chunks(AT_ONCE).map(Ok));
        let passes =
            passes.try_for_each_concurrent(what.parallel.max(1), |dates| job.pass(dates, &entities, &past, &done));
        let heard = async {
            while let Some(made_one) = steps.next().await {
                if let Step::Made { rows, bytes, .. } = made_one {
                    (made.dates, made.rows, made.bytes) = (made.dates + 1, made.rows + rows, made.bytes + bytes);
                }
                step(&made_one);
            }
            Ok(())
        };
        let all = async {
            let outcome = passes.await;
            done.close_channel();
            outcome
        };
        // What was made is heard of, whatever became of the rest.
        let (all, heard) = futures::join!(all, heard);
        all.and(heard)?;
    }
    made.elapsed = started.elapsed();
    Ok(made)
}

/// What is made of events that are gone would be wrong.
fn check_held(view: &FeatureView, past: &Past, dates: &[NaiveDate]) -> Result<()> {
    let Some(horizon) = past.removed.horizon(&view.source.timestamp) else { return Ok(()) };
    match dates.iter().find(|date| view.needs_before(horizon, end(**date))) {
        Some(date) => {
            let cause = format!("view {}: {}", view.name, view.beyond(horizon));
            Err(Error::Run { what: format!("snapshot of {date}, as of its end"), cause })
        }
        None => Ok(()),
    }
}

/// A view by its name.
pub fn view<'a>(project: &'a Project, name: &str) -> Result<&'a Arc<FeatureView>> {
    project.views.get(name).ok_or_else(|| unknown("feature view", name, project.views.keys()))
}

/// The last instant of a date, in microseconds: what its snapshot is as of.
fn end(date: NaiveDate) -> i64 {
    let next = date.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
    next.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros() - 1
}

/// Snapshots of one view.
struct Job {
    view: Arc<FeatureView>,
    storage: Storage,
    memory: Option<usize>,
}

impl Job {
    fn session(&self) -> Result<SessionContext> {
        match self.memory {
            Some(memory) => session_within(memory).map_err(self.run()),
            None => Ok(session()),
        }
    }

    fn run(&self) -> impl Fn(DataFusionError) -> Error {
        Error::run(&format!("snapshots of view {}", self.view.name))
    }

    fn folder(&self) -> object_store::path::Path {
        self.storage.path(&["snapshots", &self.view.name])
    }

    /// Those of some dates whose files are there, of this version of the view. What can't be read isn't made.
    async fn made(&self, from: NaiveDate, to: NaiveDate) -> Result<BTreeSet<NaiveDate>> {
        self.storage.sweep(&self.folder()).await?;
        let mut dates = BTreeSet::new();
        for file in self.storage.list(&self.folder(), "parquet").await? {
            let date =
                file.location.parts().find_map(|part| part.as_ref().strip_prefix("date=")?.parse::<NaiveDate>().ok());
            let Some(date) = date.filter(|date| (from..=to).contains(date)) else { continue };
            match self.storage.footer(&file).await {
                Ok(footer) => {
                    let mut pairs = footer.file_metadata().key_value_metadata().into_iter().flatten();
                    let of = pairs.find(|pair| pair.key == FINGERPRINT).and_then(|pair| pair.value.as_ref());
                    dates.extend((of == Some(&self.view.fingerprint)).then_some(date));
                }
                Err(error) => {
                    tracing::warn!(file = %file.location, %error, "a snapshot can't be read: it is made again")
                }
            }
        }
        Ok(dates)
    }

    /// Makes the snapshots of some dates, in one pass over the events.
    async fn pass(
        &self,
        dates: &[NaiveDate],
        entities: &Entities,
        past: &Past,
        done: &mpsc::UnboundedSender<Step>,
    ) -> Result<()> {
        let instants: Vec<i64> = dates.iter().copied().map(end).collect();
        let plan = snapshot_plan(&self.view, entities, &instants, past).map_err(self.run())?;
        let rows = self.session()?.execute_logical_plan(plan).await.map_err(self.run())?;
        let mut rows = rows.execute_stream().await.map_err(self.run())?;
        // Rows come by instant, so that a date is whole when the next one begins.
        let mut waiting: Vec<RecordBatch> = vec![];
        let mut dates = dates.iter().copied().peekable();
        loop {
            let Some(date) = dates.peek().copied() else { return Ok(()) };
            match rows.try_next().await.map_err(self.run())? {
                Some(batch) => {
                    let mut rest = batch;
                    while let Some(date) = dates.peek().copied() {
                        let here = snapshot_times(&rest).partition_point(|at| *at <= end(date));
                        waiting.push(rest.slice(0, here));
                        rest = rest.slice(here, rest.num_rows() - here);
                        if rest.num_rows() == 0 {
                            break;
                        }
                        self.write(date, std::mem::take(&mut waiting), past, done).await?;
                        dates.next();
                    }
                }
                // A date without entities has a file too: it is made.
                None => {
                    self.write(date, std::mem::take(&mut waiting), past, done).await?;
                    dates.next();
                }
            }
        }
    }

    async fn write(
        &self,
        date: NaiveDate,
        rows: Vec<RecordBatch>,
        past: &Past,
        done: &mpsc::UnboundedSender<Step>,
    ) -> Result<()> {
        let path = self.storage.path(&["snapshots", &self.view.name, &format!("date={date}"), "part-0.parquet"]);
        let count = rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let source = &self.view.source.name;
        let mut metadata = vec![
            (FINGERPRINT.to_owned(), self.view.fingerprint.clone()),
            ("tidemark.view".to_owned(), self.view.name.clone()),
            ("tidemark.view.sql".to_owned(), self.view.sql.clone()),
            ("tidemark.rows".to_owned(), count.to_string()),
        ];
        metadata.extend(read(source, past));
        let schema = snapshot_schema(&self.view);
        let encode = || -> parquet::errors::Result<Vec<u8>> {
            let mut writer = ArrowWriter::try_new(vec![], schema.clone(), Some(properties(&schema, &rows)))?;
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            metadata.into_iter().for_each(|(key, value)| writer.append_key_value_metadata(KeyValue::new(key, value)));
            writer.into_inner()
        };
        let encoded = encode().map_err(|e| Error::Run { what: path.to_string(), cause: e.to_string() })?;
        let bytes = encoded.len() as u64;
        self.storage.put(&path, encoded.into()).await?;
        // Who hears of it may be gone; the file is there.
        let _ = done.unbounded_send(Step::Made { date, rows: count, bytes });
        Ok(())
    }
}
