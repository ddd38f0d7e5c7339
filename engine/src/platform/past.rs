//! What was: a source's events for training sets, and what its archive lacks.

use std::sync::Arc;

use datafusion::error::DataFusionError;

use super::files_table::FilesTable;
use super::{Folder, PlatformError};
use crate::catalog::{Source, read_as};
use crate::offline::{History, Past, Storage, archive_table, archived_ends};
use crate::source::{
    EventLog, EventSource, FileSource, LogSource,
    files::{FilesConfig, Reading},
};
use crate::sql::Connector;
use crate::stream;

/// The files of a source, numbered as the stream numbered them if it has read them.
pub(super) fn files_config(folder: &Folder, source: &Source, location: &str, reading: Reading) -> FilesConfig {
    FilesConfig {
        location: location.to_owned(),
        format: source.format.map(read_as),
        timestamp: source.timestamp.clone(),
        max_future: source.options.max_future,
        of: source.of.clone().unwrap_or_default(),
        manifest: Some(folder.files().join(format!("{}.ndjson", source.name))),
        reading,
        clock: || chrono::Utc::now().timestamp_micros(),
    }
}

/// What a source accepted, for views that fill from it. `reading`: what for files are read that no stream has numbered.
pub(super) fn stream_past(folder: &Folder, source: &Source, reading: Reading) -> Result<stream::Past, PlatformError> {
    match (&source.contract, &source.location) {
        (Some(contract), _) => {
            let storage = Storage::open(folder.offline())?;
            Ok(stream::Past::Archive { storage, contract: Arc::clone(contract), history: history(source)? })
        }
        (None, Some(location)) => {
            let mut config = files_config(folder, source, location, reading);
            if config.manifest.as_ref().is_some_and(|manifest| manifest.exists()) {
                config.reading = Reading::Looking;
            }
            let (name, columns) = (source.name.clone(), source.schema.clone());
            Ok(stream::Past::Source(Arc::new(move || {
                Ok(Box::new(FileSource::with_columns(&name, config.clone(), columns.clone())?))
            })))
        }
        _ => Err(PlatformError::UnknownSource(source.name.clone())),
    }
}

/// What came before a source's stream. A history that nobody looked up must not be taken for none.
fn history(source: &Source) -> Result<Option<Arc<History>>, PlatformError> {
    match (&source.options.history, &source.history) {
        (Some(_), None) => Err(PlatformError::HistoryNotOpen(source.name.clone())),
        (_, history) => Ok(history.clone()),
    }
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

/// Those of some sources whose archive lacks events of the log. What the stream refused is not
/// missed, so what lies behind the archive's end is decoded to be counted.
pub async fn behind(
    log: &Arc<EventLog>,
    folder: &Folder,
    sources: impl IntoIterator<Item = Arc<Source>>,
) -> Result<Vec<Behind>, PlatformError> {
    const RECORDS: usize = 8192;
    let storage = Storage::open(folder.offline())?;
    let mut found = vec![];
    for source in sources {
        let Some(contract) = &source.contract else { continue };
        let archived = archived_ends(&storage, &source.name).await?;
        let time = Some((source.timestamp.as_str(), source.options.max_future));
        let mut events = LogSource::new(&source.name, log.clone(), contract.clone(), time)?;
        let mut missing = 0;
        for partition in events.partitions().await? {
            let mut next = archived.get(&partition).copied().unwrap_or(0);
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

/// A source's past: its archive, or the source's own files.
pub async fn event_table(folder: &Folder, source: &Source) -> Result<Past, DataFusionError> {
    let external = |e: Box<dyn std::error::Error + Send + Sync>| DataFusionError::External(e);
    match (source.options.connector, &source.location) {
        (Connector::Files, Some(location)) => {
            let config = files_config(folder, source, location, Reading::Looking);
            Ok(Past::whole(Arc::new(FilesTable::new(source, config))))
        }
        _ => {
            let storage = Storage::open(folder.offline()).map_err(|e| external(e.into()))?;
            let contract = source.contract.as_ref();
            let contract =
                contract.ok_or_else(|| external(PlatformError::UnknownSource(source.name.clone()).into()))?;
            let history = history(source).map_err(|e| external(e.into()))?;
            let past = archive_table(&storage, &source.name, contract).await.map_err(|e| external(e.into()))?;
            Ok(history.into_iter().fold(past, Past::after))
        }
    }
}
