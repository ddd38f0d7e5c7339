//! The embedded log as an event source.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::watch;

use super::decode::{Decoder, Message, WriterSchemas};
use super::log::{EventLog, LogError, LogRecord};
use super::{Contract, EventSource, SourceBatch, SourceError};

/// Payload that one read takes from the log at most, whatever its number of messages.
const READ_BYTES: usize = 8 << 20;

/// One source of the log, decoded under its contract.
#[derive(Debug)]
pub struct LogSource {
    name: String,
    log: Arc<EventLog>,
    /// Behind a lock because a read decodes on another thread; only one read runs at a time.
    decoder: Arc<Mutex<Decoder>>,
    schema: SchemaRef,
    commits: watch::Receiver<u64>,
}

impl LogSource {
    /// The source `name` of the log. Registers the contract's schema in the log; see [`Decoder::new`] for `time`.
    pub fn new(
        name: &str,
        log: Arc<EventLog>,
        contract: Arc<Contract>,
        time: Option<(&str, i64)>,
    ) -> Result<LogSource, SourceError> {
        log.register(&contract).map_err(|error| SourceError::Log { source_name: name.into(), error })?;
        let writers: Arc<dyn WriterSchemas> = Arc::clone(&log) as _;
        let decoder = Decoder::new(contract, writers, time)
            .map_err(|what| SourceError::Internal { source_name: name.into(), what })?;
        let (schema, commits) = (decoder.schema(), log.commits());
        Ok(LogSource { name: name.into(), log, decoder: Arc::new(Mutex::new(decoder)), schema, commits })
    }

    fn failed(&self, error: LogError) -> SourceError {
        SourceError::Log { source_name: self.name.clone(), error }
    }

    fn internal(&self, what: String) -> SourceError {
        SourceError::Internal { source_name: self.name.clone(), what }
    }
}

#[async_trait]
impl EventSource for LogSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        self.commits.borrow_and_update();
        self.log.partitions(&self.name).map_err(|e| self.failed(e))
    }

    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        self.log.end_offset(&self.name, partition).map_err(|e| self.failed(e))
    }

    async fn read(
        &mut self,
        partition: i32,
        from: i64,
        max_records: usize,
    ) -> Result<Option<SourceBatch>, SourceError> {
        // Seen before the read: a commit after it wakes the next `wait`.
        self.commits.borrow_and_update();
        let (log, decoder, name) = (Arc::clone(&self.log), Arc::clone(&self.decoder), self.name.clone());
        let read = move || -> Result<_, Result<LogError, String>> {
            let records = log.read(&name, partition, from, max_records, READ_BYTES).map_err(Ok)?;
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                return Ok(None);
            };
            let (first_offset, next_offset) = (first.offset, last.offset + 1);
            let messages: Vec<Message> = records.into_iter().map(message).collect();
            let mut decoder = decoder.lock().unwrap_or_else(PoisonError::into_inner);
            let decoded = decoder.decode(partition, &messages).map_err(Err)?;
            let (events, rejects) = (decoded.events, decoded.rejects);
            Ok(Some(SourceBatch { partition, first_offset, next_offset, events, rejects }))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(Ok(error))) => Err(self.failed(error)),
            Ok(Err(Err(what))) => Err(self.internal(what)),
            Err(e) => Err(self.internal(format!("a read did not finish: {e}"))),
        }
    }

    async fn wait(&mut self) {
        if self.commits.changed().await.is_err() {
            // The log is closed: there will be nothing new, ever.
            std::future::pending::<()>().await;
        }
    }
}

fn message(record: LogRecord) -> Message {
    Message { offset: record.offset, ingested_at: record.timestamp, payload: record.payload }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::super::{Encoder, conformance};
    use super::*;

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EventLog::open(dir.path().join("log.redb")).unwrap());
        let contract = Contract::parse(
            "t.v1",
            r#"{"type":"record","name":"T","fields":[{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]}]}"#,
        );
        let contract = Arc::new(contract.unwrap());
        let encoder = Encoder::new(Arc::clone(&contract));
        let event = |at: Option<i64>| (1_000_000, encoder.encode(&json!({ "at": at })).unwrap());
        for partition in [0, 5] {
            let mut batch: Vec<_> = (0..20).map(|i| event(Some(i))).collect();
            batch[3] = event(None);
            batch[11] = (1_000_000, Bytes::from_static(b"junk"));
            batch[19] = event(Some(2_000_001));
            log.append("t", partition, batch).await.unwrap();
        }
        log.append("other", 0, vec![event(Some(1))]).await.unwrap();
        let mut source = LogSource::new("t", Arc::clone(&log), contract, Some(("at", 1_000_000))).unwrap();
        let add = async || log.append("t", 5, vec![event(Some(1))]).await.map(|_| ()).map_err(|e| e.to_string());
        conformance::run(&mut source, 34, 6, add).await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_is_woken_by_an_append_that_came_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EventLog::open(dir.path().join("log.redb")).unwrap());
        let contract = Contract::parse("t.v1", r#"{"type":"record","name":"T","fields":[{"name":"x","type":"int"}]}"#);
        let contract = Arc::new(contract.unwrap());
        let mut source = LogSource::new("t", Arc::clone(&log), Arc::clone(&contract), None).unwrap();
        assert!(source.read(0, 0, 1).await.unwrap().is_none());
        log.append("t", 0, vec![(0, Encoder::new(contract).encode(&json!({"x": 1})).unwrap())]).await.unwrap();
        source.wait().await;
        assert_eq!(source.read(0, 0, 1).await.unwrap().unwrap().events.num_rows(), 1);
    }
}
