//! What is kept for ever: the archive of accepted events and the dead letters of refused ones; and what a source declares as the past
//! from before, which others keep ([`History`]).
//!
//! Archive and letters are plain files under one location, a folder or an object store's URL. A file is durable and whole,
//! or not there: in a folder it is written under another name, synced, renamed, and its folder synced; in a store it is one
//! put. What a location holds is read from its files, so that a replay after a crash adds what is missing and nothing twice.

use std::fmt::Display;

pub mod archive;
mod archive_ends;
mod archive_files;
mod archive_reader;
pub mod archive_table;
mod clustered;
pub mod compact;
pub mod dead_letters;
mod history;
mod older_files;
mod remote;
mod retention;
mod storage;
pub mod verify;

pub use archive::{ARCHIVE_ROWS_PER_FILE, ArchiveWriter};
pub use archive_files::archived_ends;
pub use archive_reader::ArchiveReader;
pub use archive_table::{Past, archive_table, gone};
pub use compact::{CompactStep, Compaction, compact};
pub use dead_letters::{DeadLetter, DeadLetterWriter, dead_letters};
pub(crate) use history::HISTORY_EXEC;
pub use history::{HISTORY, History, HistoryReader, Judge};
pub use retention::{Removed, Retention};
pub use storage::Storage;
pub use verify::{Beside, Verified, verify};

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(
        "offline location \"{location}\": {cause}; expected a folder, or a URL such as s3://bucket/path, with credentials in the environment"
    )]
    Location { location: String, cause: String },
    #[error("{path}: {what}: {cause}")]
    Storage { path: String, what: &'static str, cause: String },
    #[error("{path}: not a file that Tidemark wrote: {cause}; hint: move it out of the folder")]
    Foreign { path: String, cause: String },
    /// What was in the file is lost to the writer: it is to be appended again.
    #[error("{path}: can't encode: {cause}")]
    Encode { path: String, cause: String },
    /// A file that was there when the archive was listed.
    #[error("{path}: the file is gone; hint: it was compacted, or somebody removed it: list the archive again")]
    Gone { path: String },
    #[error("{path}: another writer was there first")]
    Conflict { path: String },
    /// What a source declares as its past is not what it must be, or no longer what it was.
    #[error("history of source {source_name}, {place}: {cause}")]
    History { source_name: String, place: String, cause: String },
    #[error("archive of {source_name}: events with columns {found}, expected {expected}")]
    Columns { source_name: String, found: String, expected: String },
}

/// A file that can't be read, or is not there.
fn unreadable(path: &object_store::path::Path, what: &'static str) -> impl Fn(object_store::Error) -> OfflineError {
    let failed = failed(path, what);
    let path = path.to_string();
    move |e| match e {
        object_store::Error::NotFound { .. } => OfflineError::Gone { path: path.clone() },
        e => failed(e),
    }
}

fn failed<E: Display>(path: &object_store::path::Path, what: &'static str) -> impl Fn(E) -> OfflineError {
    let path = path.to_string();
    move |e| OfflineError::Storage { path: path.clone(), what, cause: e.to_string() }
}

/// `<partition>-<first offset>`: the offset is padded so that names sort as offsets do.
fn file_stem(partition: i32, first_offset: i64) -> String {
    format!("{partition}-{first_offset:019}")
}

/// The partition and first offset in a file's name.
fn parse_stem(stem: &str) -> Option<(i32, i64)> {
    let (partition, offset) = stem.rsplit_once('-')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}
