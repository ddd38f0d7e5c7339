//! From a name to a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use datafusion::common::plan_datafusion_err;
use futures::StreamExt;
use tidemark_engine::batch::{session, training_plan};
use tidemark_engine::plan::{FeatureService, Project, TrainingSet};
use tidemark_engine::platform::event_table;
use tidemark_engine::sql::did_you_mean;

use crate::{Error, ParquetFile, Result, spine};

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

/// What was built.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub rows: u64,
    /// The spine's columns, then the features.
    pub columns: Vec<String>,
    pub seconds: f64,
    /// Size of the file.
    pub bytes: u64,
}

/// Evaluates a service over a spine and writes the rows as Parquet (zstd) to `out`.
///
/// `offline` is the root of the archive (see `tidemark_engine::platform::Folder::offline`).
pub async fn build(project: &Project, offline: &Path, request: &Request, out: &Path) -> Result<Summary> {
    let started = Instant::now();
    let session = session();
    let service = service(project, request)?;
    let (name, spine, sql) = match request {
        Request::Named(name) => {
            let set = set(project, name)?;
            let spine = spine::of_set(project, &session, set).await?;
            (format!("training set {name}"), spine, Some(set.sql.clone()))
        }
        Request::File { spine, timestamp, .. } => {
            let rows = spine::of_file(&session, spine, service, timestamp).await?;
            (format!("spine {}", spine.display()), rows, None)
        }
    };

    let events = events(offline, service).await?;
    let table = |source: &tidemark_engine::catalog::Source| {
        events.get(&source.name).cloned().ok_or_else(|| plan_datafusion_err!("no events of source `{}`", source.name))
    };
    let plan = training_plan(project, service, &spine, &table).map_err(|source| match request {
        Request::Named(name) => Error::Plan { name: name.clone(), source },
        Request::File { spine, .. } => Error::SpinePlan { path: spine.clone(), source },
    })?;

    let run = Error::run(&name);
    let rows = session.execute_logical_plan(plan).await.map_err(&run)?;
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let mut stream = rows.execute_stream().await.map_err(&run)?;
    let mut file = ParquetFile::create(out, stream.schema())?;
    let mut written = 0u64;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(&run)?;
        file.write(&batch)?;
        written += batch.num_rows() as u64;
    }
    let bytes = file.finish(metadata(service, &spine.timestamp, sql, written))?;
    let columns = schema.fields().iter().map(|f| f.name().clone()).collect();
    Ok(Summary { rows: written, columns, seconds: started.elapsed().as_secs_f64(), bytes })
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
async fn events(offline: &Path, service: &FeatureService) -> Result<BTreeMap<String, Arc<dyn TableProvider>>> {
    let mut tables = BTreeMap::new();
    for (view, _) in service.views() {
        let source = &view.source;
        if !tables.contains_key(&source.name) {
            let failed = |e| Error::Events { source_name: source.name.clone(), source: e };
            tables.insert(source.name.clone(), event_table(offline, source).await.map_err(failed)?);
        }
    }
    Ok(tables)
}

/// What the file was made from, for its footer.
fn metadata(service: &FeatureService, timestamp: &str, sql: Option<String>, rows: u64) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("tidemark.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("tidemark.service".to_owned(), service.name.clone()),
        ("tidemark.service.sql".to_owned(), service.sql.clone()),
        ("tidemark.timestamp".to_owned(), timestamp.to_owned()),
        ("tidemark.rows".to_owned(), rows.to_string()),
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

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> Error {
    let names: Vec<&str> = known.map(String::as_str).collect();
    let expected =
        if names.is_empty() { "a project that defines one".to_owned() } else { format!("one of {}", names.join(", ")) };
    Error::Unknown { kind, name: name.to_owned(), expected, hint: did_you_mean(name, names) }
}
