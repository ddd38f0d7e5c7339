//! The embedded log: a durable, replayable stream of messages in one file, in Kafka's place.
//!
//! Guarantees: [`EventLog::append`] returns once its messages survive a crash (fsync); appends of one call to
//! one partition are consecutive and in order; an offset never changes its message; a crash at any moment
//! leaves whole appends only. Concurrent appends share one commit, so that many callers cost one fsync.
//!
//! Layout: a partition is a row of blocks keyed by (source, partition, first offset); a block is what one
//! commit brought to the partition, cut into [`BLOCK_RECORDS`]. One message after the other would cost a
//! tree insertion each; blocks make appends and scans sequential.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot, watch};

use super::decode::WriterSchemas;
use super::framing::WriterId;
use super::log_block::{Block, encode_block};
use crate::database::{self, Kind, OpenError};

const KIND: Kind = Kind { name: "event log", version: "1", cache: 32 << 20 };
/// (source, partition, offset of the first message) → block.
const BLOCKS: TableDefinition<(&str, i32, i64), &[u8]> = TableDefinition::new("blocks");
/// (source, partition) → offset after the last message.
const ENDS: TableDefinition<(&str, i32), i64> = TableDefinition::new("ends");
/// Fingerprint → the JSON of a schema that messages were written with.
const SCHEMAS: TableDefinition<u64, &str> = TableDefinition::new("schemas");

/// Messages in a block at most: what a read unpacks to find one message.
const BLOCK_RECORDS: usize = 4096;
/// Appends that wait for the writer before callers have to.
const QUEUE: usize = 1024;
/// Bytes that one commit takes from the queue at most.
const COMMIT_BYTES: usize = 32 << 20;

/// A message of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub offset: i64,
    /// When it was appended, as the appender says, microseconds UTC.
    pub timestamp: i64,
    pub payload: Bytes,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Open(Arc<OpenError>),
    #[error("event log {path}: {what}: {cause}")]
    Storage { path: PathBuf, what: &'static str, cause: String },
    #[error(
        "event log {path}: source {source_name}, partition {partition}: {cause}; the file is damaged at offset {offset}"
    )]
    Damaged { path: PathBuf, source_name: String, partition: i32, offset: i64, cause: String },
    #[error(
        "event log {path}: schema {fingerprint:016x} is registered with another meaning (only logical types differ); \
         hint: give the field with the new meaning a new name"
    )]
    SchemaConflict { path: PathBuf, fingerprint: u64 },
    #[error("event log {path}: closed")]
    Closed { path: PathBuf },
}

/// The log of all sources of a platform. Cheap to share behind an [`Arc`]; one process has it open at a time.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    database: Arc<Database>,
    appends: Option<mpsc::Sender<Append>>,
    writer: Option<std::thread::JoinHandle<()>>,
    commits: watch::Receiver<u64>,
}

impl EventLog {
    /// Opens the log at `path`, or creates it.
    pub fn open(path: impl AsRef<Path>) -> Result<EventLog, LogError> {
        let path = path.as_ref().to_path_buf();
        let database = Arc::new(database::open(&path, KIND).map_err(|e| LogError::Open(Arc::new(e)))?);
        let prepared = (|| -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(BLOCKS)?;
            write.open_table(ENDS)?;
            write.open_table(SCHEMAS)?;
            write.commit()?;
            Ok(())
        })();
        prepared.map_err(storage(&path, "can't create its tables"))?;
        let (appends, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let writer = {
            let (database, log_path) = (Arc::clone(&database), path.clone());
            let writer_path = path.clone();
            std::thread::Builder::new()
                .name("event-log".into())
                .spawn(move || write_loop(&writer_path, &database, queue, &committed))
                .map_err(|e| storage(&log_path, "can't start its writer")(redb::Error::Io(e)))?
        };
        Ok(EventLog { path, database, appends: Some(appends), writer: Some(writer), commits })
    }

    /// Appends messages (timestamp in microseconds UTC, payload) to a partition; returns the offset of the
    /// first once all are durable. A large batch is one commit: the way to load history.
    pub async fn append(&self, source: &str, partition: i32, records: Vec<(i64, Bytes)>) -> Result<i64, LogError> {
        let closed = || LogError::Closed { path: self.path.clone() };
        let appends = self.appends.as_ref().ok_or_else(closed)?;
        let (reply, replied) = oneshot::channel();
        let append = Append { source: source.into(), partition, records, reply };
        appends.send(append).await.map_err(|_| closed())?;
        replied.await.map_err(|_| closed())?
    }

    /// Messages at and after `from`, in offset order: at most `max_records` and about `max_bytes` of
    /// payload, but at least one if there is one. Blocks for as long as the disk takes.
    pub fn read(
        &self,
        source: &str,
        partition: i32,
        from: i64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, LogError> {
        self.try_read(source, partition, from, max_records, max_bytes)
            .map_err(storage(&self.path, "can't read"))?
            .map_err(|(offset, cause)| LogError::Damaged {
                path: self.path.clone(),
                source_name: source.into(),
                partition,
                offset,
                cause,
            })
    }

    fn try_read(
        &self,
        source: &str,
        partition: i32,
        from: i64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Result<Vec<LogRecord>, (i64, String)>, redb::Error> {
        let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
        // The block that holds `from` starts at or before it.
        let first = blocks.range((source, partition, i64::MIN)..=(source, partition, from))?.next_back();
        let start = first.transpose()?.map_or(from, |(key, _)| key.value().2);
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in blocks.range((source, partition, start)..=(source, partition, i64::MAX))? {
            let (key, value) = entry?;
            let first_offset = key.value().2;
            let block = match Block::parse(first_offset, value.value()) {
                Ok(block) => block,
                Err(cause) => return Ok(Err((first_offset, cause))),
            };
            for record in block {
                let record = match record {
                    Ok(record) => record,
                    Err(cause) => return Ok(Err((first_offset, cause))),
                };
                if record.offset < from {
                    continue;
                }
                bytes += record.payload.len();
                if !records.is_empty() && (records.len() >= max_records || bytes > max_bytes) {
                    return Ok(Ok(records));
                }
                records.push(record);
            }
        }
        Ok(Ok(records))
    }

    /// The partitions of a source that hold messages, ascending.
    pub fn partitions(&self, source: &str) -> Result<Vec<i32>, LogError> {
        (|| -> Result<Vec<i32>, redb::Error> {
            let ends = self.database.begin_read()?.open_table(ENDS)?;
            let of_source = ends.range((source, i32::MIN)..=(source, i32::MAX))?;
            of_source.map(|entry| Ok(entry?.0.value().1)).collect()
        })()
        .map_err(storage(&self.path, "can't list partitions"))
    }

    /// The offset after the last message; 0 for a partition that holds none.
    pub fn end_offset(&self, source: &str, partition: i32) -> Result<i64, LogError> {
        (|| -> Result<i64, redb::Error> {
            let ends = self.database.begin_read()?.open_table(ENDS)?;
            Ok(ends.get((source, partition))?.map_or(0, |end| end.value()))
        })()
        .map_err(storage(&self.path, "can't read an end offset"))
    }

    /// The offset of the first message held; the end offset for a partition that holds none.
    pub fn start_offset(&self, source: &str, partition: i32) -> Result<i64, LogError> {
        (|| -> Result<Option<i64>, redb::Error> {
            let blocks = self.database.begin_read()?.open_table(BLOCKS)?;
            let first = blocks.range((source, partition, i64::MIN)..=(source, partition, i64::MAX))?.next();
            Ok(first.transpose()?.map(|(key, _)| key.value().2))
        })()
        .map_err(storage(&self.path, "can't read a start offset"))?
        .map_or_else(|| self.end_offset(source, partition), Ok)
    }

    /// Remembers a schema that messages are written with; it is durable when this returns. Blocks on the disk.
    ///
    /// Docs and defaults may change. A change of logical types only, which the fingerprint does not see, is
    /// refused: old messages would change their meaning.
    pub fn register(&self, contract: &super::Contract) -> Result<(), LogError> {
        let fingerprint = contract.fingerprint();
        if let Some(known) = self.schema_json(fingerprint)? {
            if known == contract.json() {
                return Ok(());
            }
            if super::compatible::check_compatible(&known, contract).is_err() {
                return Err(LogError::SchemaConflict { path: self.path.clone(), fingerprint });
            }
        }
        (|| -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write.open_table(SCHEMAS)?.insert(fingerprint, contract.json())?;
            write.commit()?;
            Ok(())
        })()
        .map_err(storage(&self.path, "can't register a schema"))
    }

    fn schema_json(&self, fingerprint: u64) -> Result<Option<String>, LogError> {
        (|| -> Result<Option<String>, redb::Error> {
            let schemas = self.database.begin_read()?.open_table(SCHEMAS)?;
            Ok(schemas.get(fingerprint)?.map(|json| json.value().to_owned()))
        })()
        .map_err(storage(&self.path, "can't read a schema"))
    }

    /// Changes with every commit: to wait for new messages without polling.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }
}

impl WriterSchemas for EventLog {
    fn schema(&self, writer: WriterId) -> Result<Option<String>, String> {
        match writer {
            WriterId::Rabin(fingerprint) => self.schema_json(fingerprint).map_err(|e| e.to_string()),
            WriterId::Registry(_) => Ok(None),
        }
    }
}

impl Drop for EventLog {
    /// Waits for what callers still wait for, so that the file is closed when this returns.
    fn drop(&mut self) {
        self.appends.take();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered nobody; there is nothing left to save.
            let _ = writer.join();
        }
    }
}

#[derive(Debug)]
struct Append {
    source: String,
    partition: i32,
    records: Vec<(i64, Bytes)>,
    reply: oneshot::Sender<Result<i64, LogError>>,
}

/// Takes what callers queued while the last commit ran, writes it in one transaction, answers them all.
fn write_loop(path: &Path, database: &Database, mut queue: mpsc::Receiver<Append>, committed: &watch::Sender<u64>) {
    while let Some(first) = queue.blocking_recv() {
        let size = |append: &Append| append.records.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        let mut bytes = size(&first);
        let mut group = vec![first];
        while bytes < COMMIT_BYTES
            && let Ok(next) = queue.try_recv()
        {
            bytes += size(&next);
            group.push(next);
        }
        match commit(database, &group) {
            Ok(offsets) => {
                committed.send_modify(|count| *count += 1);
                for (append, offset) in group.into_iter().zip(offsets) {
                    // A caller that went away no longer wants its offset.
                    let _ = append.reply.send(Ok(offset));
                }
            }
            Err(e) => {
                let error = storage(path, "can't append")(e);
                for append in group {
                    let _ = append.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Writes a group of appends durably; returns the first offset of each.
fn commit(database: &Database, group: &[Append]) -> Result<Vec<i64>, redb::Error> {
    let mut write = database.begin_write()?;
    // Saves what a restart after a crash would otherwise rebuild by reading the whole file.
    write.set_quick_repair(true);
    let mut offsets = Vec::with_capacity(group.len());
    {
        let mut blocks = write.open_table(BLOCKS)?;
        let mut ends = write.open_table(ENDS)?;
        let mut partitions: std::collections::BTreeMap<(&str, i32), Vec<&(i64, Bytes)>> = Default::default();
        for append in group {
            let key = (append.source.as_str(), append.partition);
            let end = ends.get(key)?.map_or(0, |end| end.value());
            let queued = partitions.entry(key).or_default();
            offsets.push(end + queued.len() as i64);
            queued.extend(&append.records);
        }
        for ((source, partition), records) in partitions {
            let mut end = ends.get((source, partition))?.map_or(0, |end| end.value());
            for records in records.chunks(BLOCK_RECORDS) {
                blocks.insert((source, partition, end), encode_block(records).as_slice())?;
                end += records.len() as i64;
            }
            if end > 0 {
                ends.insert((source, partition), end)?;
            }
        }
    }
    write.commit()?;
    Ok(offsets)
}

fn storage<E: Into<redb::Error>>(path: &Path, what: &'static str) -> impl Fn(E) -> LogError {
    move |e| LogError::Storage { path: path.into(), what, cause: e.into().to_string() }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
