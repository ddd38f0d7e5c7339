//! Where events come from: contracts, decoding, the embedded log, files, and push.
//!
//! The streaming engine sees an [`EventSource`]: partitions of events in offset order, each already in
//! columns, and beside them the ones that could not be read. Bad input is data here, never an error: an
//! error of a source means that the source itself (a disk, a file lock) failed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;

mod compatible;
pub mod conformance;
pub mod contract;
mod contract_check;
pub mod decode;
pub mod encode;
mod event_time;
mod evolution;
pub mod files;
pub mod framing;
mod inline;
mod json_places;
mod json_values;
pub mod kafka;
pub mod log;
mod log_block;
pub mod log_source;
mod nearest;
mod normalise;
pub(crate) mod nulls;
mod partition;
pub mod registry;
pub mod validate;

/// Why a database file (the log, or the embedded online store) can't be opened.
pub use crate::database::OpenError;
pub use compatible::{Unreadable, unreadable};
pub use contract::{Contract, ContractError};
pub use decode::{Decoded, Decoder, Message, WriterSchemas};
pub use encode::{EncodeError, Encoder};
pub use event_time::instant;
pub use files::{FileSource, FilesConfig};
pub use framing::WriterId;
pub use log::{EventLog, LogError, LogRecord};
pub use log_source::LogSource;
pub(crate) use normalise::normal_type;
pub use partition::partition_of;
pub use registry::{Registered, RegistryError, SchemaRegistry};

/// The source partition of an event, `Int32`.
pub const PARTITION: &str = "_partition";
/// The offset of an event in its partition, `Int64`.
pub const OFFSET: &str = "_offset";
/// When the source took the event in, `Timestamp(Microsecond, "UTC")`.
pub const INGESTED_AT: &str = "_ingested_at";
/// The columns that every event has beside its contract's, in this order, after them.
pub const META_COLUMNS: [&str; 3] = [PARTITION, OFFSET, INGESTED_AT];

/// A contract's columns followed by the platform's own.
pub fn event_schema(columns: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(PARTITION, DataType::Int32, false)));
    fields.push(Arc::new(Field::new(OFFSET, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(INGESTED_AT, normalise::utc_micros(), false)));
    Arc::new(Schema::new(fields))
}

/// An event that could not be taken: its place, its bytes as they came, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub offset: i64,
    /// When the source took it in, microseconds UTC.
    pub ingested_at: i64,
    pub payload: Bytes,
    pub reason: String,
}

/// A stretch of one partition: every offset in `first_offset..next_offset` is an event, a reject, or nothing.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    pub partition: i32,
    pub first_offset: i64,
    /// Where the next read goes on; a source may leave gaps between offsets.
    pub next_offset: i64,
    /// In offset order, of the source's [`EventSource::schema`].
    pub events: RecordBatch,
    /// In offset order.
    pub rejects: Vec<Reject>,
}

/// The source itself failed (not an event in it).
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source {source_name}: {error}")]
    Log { source_name: String, error: LogError },
    #[error("source {source_name}: {what}; expected {expected}; hint: {hint}")]
    Files { source_name: String, what: String, expected: String, hint: String },
    #[error("source {source_name}: no partition {partition}; it has {partitions}")]
    NoPartition { source_name: String, partition: i32, partitions: String },
    #[error("source {source_name}: {error}")]
    Kafka { source_name: String, error: kafka::KafkaError },
    #[error("dead letters of source {source_name}: {cause}")]
    DeadLetters { source_name: String, cause: String },
    #[error("source {source_name}: {what}")]
    Internal { source_name: String, what: String },
}

/// Where events go that could not be taken.
#[async_trait]
pub trait DeadLetters: Send + Debug {
    /// Takes the rejects of a stretch of a partition, in offset order; stretches come in order.
    fn append(&mut self, partition: i32, rejects: &[Reject]);

    /// Makes everything appended durable; what it could not write it keeps.
    async fn flush(&mut self) -> Result<(), SourceError>;

    /// Forgets what is not durable of a partition that another instance reads from now on.
    fn release(&mut self, partition: i32);
}

/// A stream of events with replay: the same offset always reads the same event.
#[async_trait]
pub trait EventSource: Send + Debug {
    fn name(&self) -> &str;

    /// The contract's columns, then [`META_COLUMNS`].
    fn schema(&self) -> SchemaRef;

    /// The partitions that this instance reads, ascending; new ones may appear later. Where several instances share a
    /// source, partitions come and go.
    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError>;

    /// All partitions, whoever reads them.
    async fn all_partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        self.partitions().await
    }

    /// The reader is about to read these partitions from where it stopped, or for the first time.
    async fn begin(&mut self, _partitions: &[i32]) -> Result<(), SourceError> {
        Ok(())
    }

    /// Where a partition begins for a reader who has never read it.
    async fn start_offset(&mut self, _partition: i32) -> Result<i64, SourceError> {
        Ok(0)
    }

    /// Everything below these offsets is durable; for others to see, not for the reader to rely on.
    async fn commit(&mut self, _next: &BTreeMap<i32, i64>) -> Result<(), SourceError> {
        Ok(())
    }

    /// What keeps it from reading, while something does; asked after reads that gave nothing. It may have lost its
    /// partitions by that, so that no read would say it.
    fn trouble(&self) -> Option<SourceError> {
        None
    }

    /// Whether there is nothing more for now, asked after reads that gave nothing.
    async fn exhausted(&mut self) -> Result<bool, SourceError> {
        Ok(true)
    }

    /// The offset after the last event that a partition holds now; 0 for one that holds none.
    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError>;

    /// About how many events lie between two offsets: 0 if there is no offset between them, at least 1 otherwise.
    async fn between(&mut self, _partition: i32, from: i64, to: i64) -> Result<i64, SourceError> {
        Ok(to.saturating_sub(from).max(0))
    }

    /// Events at and after offset `from`, at least one and at most `max_records` (rejects included);
    /// `None` when there are none yet.
    async fn read(&mut self, partition: i32, from: i64, max_records: usize)
    -> Result<Option<SourceBatch>, SourceError>;

    /// What will be read next, most likely: a source may begin with it, if there is as much as a read takes.
    fn read_ahead(&mut self, _partition: i32, _from: i64, _max_records: usize) {}

    /// Returns once there may be events that no read before this call could have returned. It may
    /// return early, and is safe to cancel.
    async fn wait(&mut self);
}
