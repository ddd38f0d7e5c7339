//! A source's declared history: events from before its stream began, in Parquet files with the contract's columns.
//!
//! ```text
//! history = 's3://bucket/events/*.parquet'     or a folder, or a file; a relative path starts at the project folder
//! ```
//!
//! It is a partition of the source, [`HISTORY`], which orders before all others. An event's offset is `file << 32 | row`, files in the order
//! of their names. Guarantees: which files there are, and what is in them, is one [`version`](History::version), asked once when a project is
//! opened; what is read later is those very bytes, or an error that names the file. Every row is an event: what can't be one is an error that
//! names file and row, online and offline, also where a training set doesn't need the row ([`needed`]). Files with other columns are read as old archive files are: see [`super::older_files`].

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::ListingTableUrl;
use futures::{StreamExt, TryStreamExt, stream};
use glob::{MatchOptions, Pattern};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::older_files::OlderFiles;
use super::{OfflineError, remote};
use crate::source::{Contract, event_schema};

mod file;
mod needed;
mod reader;
mod scan;
mod table;

pub use reader::HistoryReader;
pub(crate) use scan::HISTORY_EXEC;
pub(super) use table::HistoryTable;

/// The partition of a source that its history is.
pub const HISTORY: i32 = -1;

/// Bits of an offset that count the rows of a file.
const ROW_BITS: u32 = 32;

/// Requests, or files, at once.
const AT_ONCE: usize = 8;

/// What makes rows of files events.
#[derive(Debug, Clone)]
pub struct Judge {
    pub source: String,
    pub contract: Arc<Contract>,
    /// The column with the event time.
    pub timestamp: String,
    /// How far past the clock, in microseconds, an event time may lie.
    pub max_future: i64,
}

impl Judge {
    /// The latest event time that is not in the future.
    fn latest(&self) -> i64 {
        chrono::Utc::now().timestamp_micros().saturating_add(self.max_future)
    }
}

/// The files of a history, as they were when it was opened. Cheap to share.
pub struct History {
    judge: Judge,
    store: Arc<dyn ObjectStore>,
    files: Vec<HistoryFile>,
    older: OlderFiles,
    schema: SchemaRef,
    version: String,
}

/// A file of it.
#[derive(Debug, Clone)]
struct HistoryFile {
    /// Its path below the location's leading folder.
    name: String,
    meta: ObjectMeta,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("source", &self.judge.source)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl History {
    /// Looks up the files of a location. What an object store wants to know is in the environment.
    pub async fn open(location: &str, judge: Judge) -> Result<History, OfflineError> {
        let refused = |cause: String| refused(&judge.source, location, cause);
        let place = Place::of(location);
        let (store, folder): (Arc<dyn ObjectStore>, Path) = match place.url {
            false => {
                let store = LocalFileSystem::new_with_prefix(&place.folder);
                let what = |e| format!("can't list {}: {e}; expected a folder of Parquet files", place.folder);
                (Arc::new(store.map_err(|e| refused(what(e)))?), Path::default())
            }
            true => {
                let url = ListingTableUrl::parse(&place.folder).map_err(|e| refused(e.to_string()))?;
                remote::connect(url.get_url(), remote::environment()).map_err(|e| refused(e.to_string()))?
            }
        };
        let prefix = Some(&folder).filter(|folder| !folder.as_ref().is_empty());
        let found = async {
            match place.is_flat() {
                true => Ok(store.list_with_delimiter(prefix).await?.objects),
                false => store.list(prefix).try_collect().await,
            }
        };
        let found: Vec<ObjectMeta> =
            found.await.map_err(|e: object_store::Error| refused(format!("can't list: {e}")))?;
        let mut files = vec![];
        for meta in found {
            let name = meta.location.prefix_match(&folder).map(|parts| parts.collect::<Path>().to_string());
            let name = name.unwrap_or_default();
            if place.holds(&name) {
                files.push(HistoryFile { name, meta });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if files.is_empty() {
            return Err(refused("no file there; expected Parquet files; hint: try events/*.parquet".to_owned()));
        }
        let contents = stream::iter(files.iter().map(|file| content(&*store, &file.meta, place.url)));
        let contents: Vec<String> =
            contents.buffered(AT_ONCE).try_collect().await.map_err(|e| refused(e.to_string()))?;
        let mut hash = Sha256::new();
        for (file, content) in files.iter().zip(contents) {
            hash.update(format!("{}\n{} {content}\n", file.name, file.meta.size));
        }
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let version = format!("{} files, {hash}", files.len());
        let older = OlderFiles::new(&judge.source, Arc::clone(&judge.contract)).map_err(refused)?;
        let schema = event_schema(judge.contract.columns());
        Ok(History { judge, store, files, older, schema, version })
    }

    /// What it holds, in a few words: other files, or other bytes in them, are another version, wherever they are.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The offset below which all of its events are.
    pub fn end(&self) -> i64 {
        (self.files.len() as i64) << ROW_BITS
    }

    /// About how many events lie between two offsets: by the bytes of the files, since rows are not known before they are read.
    pub fn between(&self, from: i64, to: i64) -> i64 {
        /// Bytes that an event takes in Parquet, about.
        const EVENT: u64 = 32;
        let file = |offset: i64| usize::try_from(offset >> ROW_BITS).unwrap_or(0).min(self.files.len());
        let bytes = |file: &HistoryFile| i64::try_from(file.meta.size / EVENT).unwrap_or(i64::MAX).max(1);
        match from < to {
            true => self.files.get(file(from)..file(to)).into_iter().flatten().map(bytes).sum::<i64>().max(1),
            false => 0,
        }
    }

    fn refused(&self, place: &str, cause: impl ToString) -> OfflineError {
        refused(&self.judge.source, place, cause.to_string())
    }
}

fn refused(source: &str, place: &str, cause: String) -> OfflineError {
    OfflineError::History { source_name: source.to_owned(), place: place.to_owned(), cause }
}

/// What is in a file. An object store says so by its tag; of a file here it is a checksum, so that a copy is the same.
async fn content(store: &dyn ObjectStore, meta: &ObjectMeta, remote: bool) -> object_store::Result<String> {
    if remote {
        return Ok(meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339()));
    }
    let pinned = GetOptions { if_match: meta.e_tag.clone(), ..GetOptions::default() };
    let mut bytes = store.get_opts(&meta.location, pinned).await?.into_stream();
    let mut hash = Sha256::new();
    while let Some(bytes) = bytes.try_next().await? {
        hash.update(&bytes);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A location, taken apart.
#[derive(Debug, PartialEq)]
struct Place {
    url: bool,
    /// Its leading folder, to the first part with a `*`.
    folder: String,
    /// What the names of files below that are like; of a whole folder, all that end in `.parquet`.
    pattern: Option<Pattern>,
}

impl Place {
    fn of(location: &str) -> Place {
        let location = location.strip_prefix("file://").unwrap_or(location);
        let url = location.contains("://");
        let special = location.find(['*', '?', '[']);
        let file =
            location.to_ascii_lowercase().ends_with(".parquet") && (url || !std::path::Path::new(location).is_dir());
        let split = |at: usize| location.get(..at).and_then(|before| before.rfind('/')).map_or(0, |slash| slash + 1);
        let (folder, name) = match special {
            Some(at) => location.split_at(split(at)),
            None if file => location.split_at(split(location.len())),
            None => (location, ""),
        };
        let pattern = match (special, name) {
            (_, "") => None,
            // It was checked when the definition was read.
            (Some(_), name) => Pattern::new(name).ok(),
            (None, name) => Pattern::new(&Pattern::escape(name)).ok(),
        };
        let folder = if folder.is_empty() { "." } else { folder };
        Place {
            url,
            folder: if url { format!("{}/", folder.trim_end_matches('/')) } else { folder.to_owned() },
            pattern,
        }
    }

    /// Whether its files are all in the folder itself.
    fn is_flat(&self) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| !pattern.as_str().contains('/'))
    }

    fn holds(&self, name: &str) -> bool {
        let options =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
        match &self.pattern {
            Some(pattern) => pattern.matches_with(name, options),
            // What other tools keep beside their files begins so.
            None => name.ends_with(".parquet") && !name.split('/').any(|part| part.starts_with(['.', '_'])),
        }
    }
}

#[cfg(test)]
mod tests;
