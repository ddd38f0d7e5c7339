//! From a name to a file, or a folder of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use datafusion::common::plan_datafusion_err;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use tidemark_engine::batch::{Cut, PartitionBy, session, session_in_order, session_within, spilled, training_plan};
use tidemark_engine::offline::Past;
use tidemark_engine::plan::{FeatureService, Project, TrainingSet};
use tidemark_engine::platform::{Folder, event_table};
use tidemark_engine::sql::did_you_mean;

use crate::folder::{Part, Partitioning};
use crate::output::{Format, Metadata, Output};
use crate::{Error, Result, spine};

/// What to build.
#[derive(Debug, Clone)]
pub enum Request {
    /// A `CREATE TRAINING SET` of the project.
    Named(String),
    /// A feature service over the rows of a file.
    File {
        service: String,
        spine: PathBuf,
        /// The file's column with the instant to evaluate at.
        timestamp: String,
    },
}

/// How to build it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bytes of memory that joins and sorts share; what they need beyond it they write to temporary files. No limit without.
    pub memory: Option<usize>,
    /// Which rows of the spine.
    pub cut: Cut,
    pub format: Format,
    /// A folder with a file for each of its values, in place of one file.
    pub partition_by: Option<PartitionBy>,
}

/// What was built.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub rows: u64,
    /// The spine's columns, then the features.
    pub columns: Vec<String>,
    pub seconds: f64,
    /// Size of the file, or of all files.
    pub bytes: u64,
    /// The files of a folder.
    pub parts: Vec<Part>,
    /// Bytes that went through temporary files, since the memory limit was reached.
    pub spilled: u64,
}

/// Evaluates a service over a spine and writes the rows to `out`. The events are those of the folder's archive.
pub async fn build(
    project: &Project,
    folder: &Folder,
    request: &Request,
    options: &Options,
    out: &Path,
) -> Result<Summary> {
    let started = Instant::now();
    if out.to_string_lossy().contains("://") {
        let cause = "it is a URL; expected a path on this machine; hint: write it here, and copy it there".to_owned();
        return Err(Error::File { action: "create", path: out.into(), cause });
    }
    let session = match options.memory {
        Some(memory) => session_within(memory).map_err(Error::run("the memory limit"))?,
        None => session(),
    };
    let service = service(project, request)?;
    let rows = session_in_order();
    let (name, spine, sql) = match request {
        Request::Named(name) => {
            let set = set(project, name)?;
            let spine = spine::of_set(project, &rows, set).await?;
            (format!("training set {name}"), spine, Some(set.sql.clone()))
        }
        Request::File { spine, timestamp, .. } => {
            let read = spine::of_file(&rows, spine, service, timestamp).await?;
            (format!("spine {}", spine.display()), read, None)
        }
    };

    let spine = spine.cut(options.cut.clone());
    let events = events(folder, service).await?;
    let table = |source: &tidemark_engine::catalog::Source| {
        let past = events.get(&source.name).cloned();
        past.ok_or_else(|| plan_datafusion_err!("no events of source `{}`", source.name))
    };
    let plan =
        training_plan(project, service, &spine, &table, options.partition_by.as_ref()).map_err(
            |source| match request {
                Request::Named(name) => Error::Plan { name: name.clone(), source },
                Request::File { spine, .. } => Error::SpinePlan { path: spine.clone(), source },
            },
        )?;

    let run = Error::run(&name);
    let rows = session.execute_logical_plan(plan).await.map_err(&run)?;
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let (context, plan) = (Arc::new(rows.task_ctx()), rows.create_physical_plan().await.map_err(&run)?);
    let mut stream = execute_stream(plan.clone(), context).map_err(&run)?;
    let mut metadata = metadata(service, &spine.timestamp, sql);
    metadata.extend(made_from(&events, &options.cut));
    let by = options.partition_by.clone().map(|by| Partitioning { by, timestamp: spine.timestamp.clone() });
    let mut file = Output::create(options.format, out, stream.schema(), by, metadata)?;
    let mut written = 0u64;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(&run)?;
        file.write(&batch)?;
        written += batch.num_rows() as u64;
    }
    let (bytes, parts) = file.finish()?;
    let columns = schema.fields().iter().map(|f| f.name().clone()).collect();
    let seconds = started.elapsed().as_secs_f64();
    Ok(Summary { rows: written, columns, seconds, bytes, parts, spilled: spilled(&plan) })
}

/// The service that a request evaluates.
pub fn service<'a>(project: &'a Project, request: &Request) -> Result<&'a Arc<FeatureService>> {
    match request {
        Request::Named(name) => Ok(&set(project, name)?.service),
        Request::File { service, .. } => {
            project.services.get(service).ok_or_else(|| unknown("feature service", service, project.services.keys()))
        }
    }
}

fn set<'a>(project: &'a Project, name: &str) -> Result<&'a Arc<TrainingSet>> {
    project.training_sets.get(name).ok_or_else(|| unknown("training set", name, project.training_sets.keys()))
}

/// The past of every source that the service's views read.
async fn events(folder: &Folder, service: &FeatureService) -> Result<BTreeMap<String, Past>> {
    let mut tables = BTreeMap::new();
    for (view, _) in service.views() {
        let source = &view.source;
        if !tables.contains_key(&source.name) {
            let failed = |e| Error::Events { source_name: source.name.clone(), source: e };
            tables.insert(source.name.clone(), event_table(folder, source).await.map_err(failed)?);
        }
    }
    Ok(tables)
}

/// What the file was made from, for its footer.
fn metadata(service: &FeatureService, timestamp: &str, sql: Option<String>) -> Metadata {
    let mut pairs = vec![
        ("tidemark.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("tidemark.service".to_owned(), service.name.clone()),
        ("tidemark.service.sql".to_owned(), service.sql.clone()),
        ("tidemark.timestamp".to_owned(), timestamp.to_owned()),
    ];
    pairs.extend(sql.map(|sql| ("tidemark.training_set.sql".to_owned(), sql)));
    pairs.extend(
        service
            .views()
            .into_iter()
            .map(|(view, _)| (format!("tidemark.view.{}.fingerprint", view.name), view.fingerprint.clone())),
    );
    pairs
}

/// What the events were read from: the version of the history, and the first and the last offset of each partition of the archive, where
/// there are any.
pub(crate) fn read(source: &str, past: &Past) -> Metadata {
    let ranges = past.offsets.iter().map(|(partition, range)| format!("{partition}:{}-{}", range.start(), range.end()));
    let ranges = ranges.collect::<Vec<_>>().join(" ");
    let read = [("history", past.history.clone()), ("offsets", Some(ranges).filter(|ranges| !ranges.is_empty()))];
    read.into_iter().filter_map(|(what, is)| Some((format!("tidemark.source.{source}.{what}"), is?))).collect()
}

/// Which events there were, and which rows of the spine were asked for.
fn made_from(events: &BTreeMap<String, Past>, cut: &Cut) -> Metadata {
    let mut pairs = vec![];
    pairs.extend(events.iter().flat_map(|(source, past)| read(source, past)));
    let instant = |at: i64| chrono::DateTime::from_timestamp_micros(at).map_or(at.to_string(), |at| at.to_rfc3339());
    let asked =
        [("from", cut.from.map(instant)), ("to", cut.to.map(instant)), ("sample", cut.sample.map(|s| s.to_string()))];
    pairs.extend(asked.into_iter().filter_map(|(name, value)| Some((format!("tidemark.spine.{name}"), value?))));
    pairs
}

pub(crate) fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> Error {
    let names: Vec<&str> = known.map(String::as_str).collect();
    let expected =
        if names.is_empty() { "a project that defines one".to_owned() } else { format!("one of {}", names.join(", ")) };
    Error::Unknown { kind, name: name.to_owned(), expected, hint: did_you_mean(name, names) }
}
