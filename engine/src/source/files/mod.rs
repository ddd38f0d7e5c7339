//! Files as an event source: Parquet, CSV, NDJSON and Avro, read in the order of their paths.
//!
//! Guarantees: a location is one partition, 0; an event's offset is `file number << 32 | row`, so that the same
//! files always read the same. A file that can't be read, or a row that doesn't fit, is a reject with its
//! reason, and the others go on. A new file must sort after those already numbered; if it doesn't, the
//! source says which two files disagree. With a manifest file the numbering survives a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

mod convert;
mod infer;
mod listing;
mod reader;
mod rows;

use super::{EventSource, SourceBatch, SourceError, event_schema};
pub use infer::{file_columns, infer};
pub use listing::Format;
use listing::Listing;
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
    /// How far, in microseconds, an event may lie in the future of its file's last change.
    pub max_future: i64,
    /// Where the numbering of the files is kept across restarts, if it is.
    pub manifest: Option<PathBuf>,
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
        let listing = Listing::open(name, &config.location, config.format, config.manifest)?;
        let schema = event_schema(&columns);
        let reader = Reader::new(listing, columns, Arc::clone(&schema), config.timestamp, config.max_future);
        Ok(FileSource { name: name.into(), schema, reader: Arc::new(Mutex::new(reader)) })
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

    async fn wait(&mut self) {
        let known = self.blocking(|reader| Ok(reader.known_files())).await;
        loop {
            let found = self.blocking(|reader| reader.end_offset().map(|_| reader.known_files())).await;
            // An error is for the next read to report.
            match (&known, found) {
                (Ok(known), Ok(found)) if *known == found => tokio::time::sleep(POLL).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
