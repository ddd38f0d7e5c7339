//! Files as an event source: Parquet, CSV, NDJSON and Avro.
//!
//! Guarantees:
//!
//! * A location is one partition, 0, and an event's offset is `number << 32 | row`. Numbers are given to stretches of
//!   files as they are found, in the order of their paths, and kept in a manifest with the bytes' checksums and the
//!   instant, which is when the events were ingested. So an offset always reads the same, wherever the project moves.
//! * A stream that runs on takes a file once it has stayed the same for a while ([`Reading::Following`]). Text that
//!   grows by whole lines is read on; a file of which nothing could be read may turn into anything.
//! * Any other change of a file that was read is a reject that names the file, and the others go on; reading its events
//!   again, for a new view or a training set, is an error. So is a file that was read and is gone. Where nothing is written down, and a
//!   file is of a format that is read whole, its size and its last change say whether it has changed, and not its checksum.
//! * A row that doesn't fit, or a file whose content can't be read, is a reject with its reason, and the others go on:
//!   the same ones whenever they are read, since they are rejects for their bytes. A disk that fails is an error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;

mod convert;
mod infer;
mod listing;
mod location;
mod manifest;
mod parquet_rows;
mod reader;
mod rows;
mod scan;
mod stretch;

use super::{EventSource, SourceBatch, SourceError, event_schema};
pub use infer::{file_columns, infer};
use listing::Listing;
pub use location::{Format, place};
use reader::Reader;

/// How often a location is looked at for new files, while a reader waits.
const POLL: Duration = Duration::from_secs(1);

/// Bits of an offset that count the rows of a file.
const ROW_BITS: u32 = 32;

/// What a files source is made of.
#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// A file, a folder, or a pattern such as `events/*.parquet`.
    pub location: String,
    /// What the files are; by their endings, if it isn't stated.
    pub format: Option<Format>,
    /// The column that holds the event time.
    pub timestamp: String,
    /// How far, in microseconds, an event may lie in the future of its ingestion: when its file was numbered.
    pub max_future: i64,
    /// What all this amounts to, wherever the project is and however the location is spelt: another one is numbered anew.
    pub of: String,
    /// Where the numbering of the files is kept across restarts, if it is.
    pub manifest: Option<PathBuf>,
    pub reading: Reading,
    /// Microseconds UTC.
    pub clock: fn() -> i64,
}

/// What the files are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A stream that runs on: a file is taken once its writer seems to be done with it.
    Following,
    /// A stream that ends: files are taken as they are.
    Draining,
    /// Reading again what the stream has read, and nothing else; without a stream, what a drain would read now. Writes
    /// nothing down.
    Looking,
}

/// Files of one location as one partition of events.
#[derive(Debug)]
pub struct FileSource {
    name: String,
    schema: SchemaRef,
    /// Behind a lock because reading runs on another thread; only one read runs at a time.
    reader: Arc<Mutex<Reader>>,
}

impl FileSource {
    /// Opens a location whose files are there; infers the columns from them, see [`infer`] and [`file_columns`].
    /// Blocks on the disk.
    pub fn open(name: &str, config: FilesConfig) -> Result<FileSource, SourceError> {
        let columns = file_columns(name, &infer(name, &config.location, config.format)?, &config.timestamp)?;
        FileSource::with_columns(name, config, columns)
    }

    /// As [`FileSource::open`], with columns that are known: the timestamp column among them is an instant.
    pub fn with_columns(name: &str, config: FilesConfig, columns: SchemaRef) -> Result<FileSource, SourceError> {
        FileSource::reading(name, config, columns, None)
    }

    /// As [`FileSource::with_columns`], for who reads only some of the columns: others may be NULL, whatever the schema says.
    /// The same events come, and the same
    /// rejects, but for a columnar file of which a column that isn't read is broken: that one's events come here.
    pub fn with_only(
        name: &str,
        config: FilesConfig,
        columns: SchemaRef,
        mut only: BTreeSet<String>,
    ) -> Result<FileSource, SourceError> {
        only.insert(config.timestamp.clone());
        FileSource::reading(name, config, columns, Some(only))
    }

    fn reading(
        name: &str,
        config: FilesConfig,
        columns: SchemaRef,
        only: Option<BTreeSet<String>>,
    ) -> Result<FileSource, SourceError> {
        let listing = Listing::open(name, config)?;
        let fields = columns.fields().iter().map(|field| {
            let read = only.as_ref().is_none_or(|only| only.contains(field.name()));
            field.as_ref().clone().with_nullable(field.is_nullable() || !read)
        });
        let schema = event_schema(&Schema::new(fields.collect::<Vec<_>>()));
        let reader = Reader::new(listing, columns, only, Arc::clone(&schema));
        Ok(FileSource { name: name.into(), schema, reader: Arc::new(Mutex::new(reader)) })
    }

    /// As [`EventSource::read`] reads, on this thread: for who has one for it.
    pub fn read_here(&self, from: i64, max_records: usize) -> Result<Option<SourceBatch>, SourceError> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).read(from, max_records.max(1))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Reader) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let reader = Arc::clone(&self.reader);
        let run = move || run(&mut reader.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(e) => Err(SourceError::Internal {
                source_name: self.name.clone(),
                what: format!("a read did not finish: {e}"),
            }),
        }
    }

    fn check(&self, partition: i32) -> Result<(), SourceError> {
        if partition == 0 {
            return Ok(());
        }
        Err(SourceError::NoPartition { source_name: self.name.clone(), partition, partitions: "only 0".into() })
    }
}

#[async_trait]
impl EventSource for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        self.blocking(|reader| Ok(if reader.end_offset()? > 0 { vec![0] } else { Vec::new() })).await
    }

    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        self.check(partition)?;
        self.blocking(Reader::end_offset).await
    }

    async fn read(
        &mut self,
        partition: i32,
        from: i64,
        max_records: usize,
    ) -> Result<Option<SourceBatch>, SourceError> {
        self.check(partition)?;
        self.blocking(move |reader| reader.read(from, max_records.max(1))).await
    }

    async fn between(&mut self, partition: i32, from: i64, to: i64) -> Result<i64, SourceError> {
        self.check(partition)?;
        self.blocking(move |reader| Ok(reader.between(from, to))).await
    }

    async fn wait(&mut self) {
        let known = self.blocking(|reader| Ok(reader.numbers())).await;
        loop {
            let found = self.blocking(|reader| reader.end_offset().map(|_| reader.numbers())).await;
            // An error is for the next read to report.
            match (&known, found) {
                (Ok(known), Ok(found)) if *known == found => tokio::time::sleep(POLL).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod numbering_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together_tests;
