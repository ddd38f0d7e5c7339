//! What a source accepted, read again: from its history and its archive, or from the source itself where that is one.
//!
//! Guarantees: events come once, in offset order, as they came the first time. What was accepted is not judged again under
//! today's limits and contract, and what was refused stays refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};

use super::error::StreamError;
use crate::offline::{ArchiveReader, HISTORY, History, HistoryReader, Storage};
use crate::source::{Contract, EventSource, OFFSET, SourceError};

/// Where it is.
#[derive(Clone)]
pub enum Past {
    Archive {
        storage: Storage,
        contract: Arc<Contract>,
        /// What came before.
        history: Option<Arc<History>>,
    },
    /// Opens a source that gives the same events again.
    Source(Arc<dyn Fn() -> Result<Box<dyn EventSource>, SourceError> + Send + Sync>),
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive { .. } => "Archive",
            Self::Source(_) => "Source",
        })
    }
}

impl Past {
    /// What came before the stream, if the source declares it.
    pub(super) fn history(&self) -> Option<&Arc<History>> {
        match self {
            Self::Archive { history, .. } => history.as_ref(),
            Self::Source(_) => None,
        }
    }

    /// Opens a source's past as it is now.
    pub async fn open(&self, source: &str) -> Result<PastReader, StreamError> {
        Ok(match self {
            Self::Archive { storage, contract, history } => {
                let archive = Box::new(ArchiveReader::open(storage.clone(), source, contract).await?);
                PastReader::Archive(archive, history.clone().map(HistoryReader::new).map(Box::new))
            }
            Self::Source(open) => PastReader::Source(open()?),
        })
    }
}

#[derive(Debug)]
pub enum PastReader {
    Archive(Box<ArchiveReader>, Option<Box<HistoryReader>>),
    Source(Box<dyn EventSource>),
}

impl PastReader {
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Archive(archive, _) => archive.schema(),
            Self::Source(events) => events.schema(),
        }
    }

    /// By partition, the offset below which there is nothing more to come.
    pub(super) async fn ends(&mut self) -> Result<BTreeMap<i32, i64>, StreamError> {
        match self {
            Self::Archive(archive, history) => {
                let mut ends = archive.ends();
                ends.extend(history.as_ref().map(|history| (HISTORY, history.end())));
                Ok(ends)
            }
            Self::Source(events) => {
                let mut ends = BTreeMap::new();
                for partition in events.all_partitions().await? {
                    ends.insert(partition, events.end_offset(partition).await?);
                }
                Ok(ends)
            }
        }
    }

    /// About how many events lie between two offsets of a partition.
    pub(super) async fn between(&mut self, partition: i32, from: i64, to: i64) -> Result<u64, StreamError> {
        let events = match self {
            Self::Archive(_, Some(history)) if partition == HISTORY => history.between(from, to),
            Self::Archive(..) => to.saturating_sub(from),
            Self::Source(events) => events.between(partition, from, to).await?,
        };
        Ok(u64::try_from(events).unwrap_or(0))
    }

    /// What lies below an offset of a partition is gone, if anything is: that offset, and from when on every event is there.
    pub(super) fn removed(&self, partition: i32, timestamp: &str) -> Option<(i64, i64)> {
        match self {
            Self::Archive(archive, _) => {
                let removed = archive.removed();
                removed.horizon(timestamp).map(|horizon| (removed.begin(partition), horizon))
            }
            Self::Source(_) => None,
        }
    }

    /// Events from an offset on, `most` of them at most, and where the next ones begin; none where there are no more.
    pub(super) async fn read(
        &mut self,
        partition: i32,
        from: i64,
        most: usize,
    ) -> Result<Option<(RecordBatch, i64)>, StreamError> {
        match self {
            Self::Archive(_, Some(history)) if partition == HISTORY => Ok(history.read(from, most).await?),
            Self::Archive(archive, _) => {
                let events = archive.read(partition, from, most).await?;
                Ok(events.and_then(|events| last_offset(&events).map(|last| (events, last + 1))))
            }
            Self::Source(events) => {
                let batch = events.read(partition, from, most).await?;
                Ok(batch.map(|batch| (batch.events, batch.next_offset)))
            }
        }
    }
}

fn last_offset(events: &RecordBatch) -> Option<i64> {
    events.column_by_name(OFFSET)?.as_primitive_opt::<Int64Type>()?.values().last().copied()
}
