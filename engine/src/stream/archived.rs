//! A source whose past is its archive.
//!
//! Guarantees: below the archive's end events come from the archive, from there on from the source, each once, in offset
//! order. So a view that fills sees exactly the events that a training set sees: what was accepted once is not judged
//! again under today's limits and contract, and what was refused stays refused.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;

use crate::offline::ArchiveReader;
use crate::source::{EventSource, OFFSET, SourceBatch, SourceError};

#[derive(Debug)]
pub struct Archived {
    source: Box<dyn EventSource>,
    archive: ArchiveReader,
}

impl Archived {
    pub fn new(source: Box<dyn EventSource>, archive: ArchiveReader) -> Self {
        Self { source, archive }
    }
}

#[async_trait]
impl EventSource for Archived {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }

    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        self.source.partitions().await
    }

    async fn all_partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        self.source.all_partitions().await
    }

    async fn begin(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        let source_name = self.source.name().to_owned();
        let looked = self.archive.refresh().await;
        looked.map_err(|e| SourceError::Internal { source_name, what: e.to_string() })?;
        self.source.begin(partitions).await
    }

    async fn start_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        self.source.start_offset(partition).await
    }

    async fn commit(&mut self, next: &BTreeMap<i32, i64>) -> Result<(), SourceError> {
        self.source.commit(next).await
    }

    fn trouble(&self) -> Option<SourceError> {
        self.source.trouble()
    }

    async fn exhausted(&mut self) -> Result<bool, SourceError> {
        self.source.exhausted().await
    }

    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        self.source.end_offset(partition).await
    }

    async fn read(
        &mut self,
        partition: i32,
        from: i64,
        max_records: usize,
    ) -> Result<Option<SourceBatch>, SourceError> {
        let end = self.archive.end(partition);
        if from >= end {
            return self.source.read(partition, from, max_records).await;
        }
        let events = self.archive.read(partition, from, max_records).await;
        let source_name = self.source.name().to_owned();
        let events = events.map_err(|e| SourceError::Internal { source_name, what: e.to_string() })?;
        // What is left up to the archive's end was refused.
        let events = events.unwrap_or_else(|| RecordBatch::new_empty(self.schema()));
        let next_offset = last_offset(&events).map_or(end, |last| last + 1);
        Ok(Some(SourceBatch { partition, first_offset: from, next_offset, events, rejects: vec![] }))
    }

    async fn between(&mut self, partition: i32, from: i64, to: i64) -> Result<i64, SourceError> {
        self.source.between(partition, from, to).await
    }

    async fn wait(&mut self) {
        self.source.wait().await;
    }
}

fn last_offset(events: &RecordBatch) -> Option<i64> {
    events.column_by_name(OFFSET)?.as_primitive_opt::<Int64Type>()?.values().last().copied()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::offline::{ArchiveWriter, Storage};
    use crate::source::{Contract, Encoder, EventLog, LogSource, conformance};

    #[tokio::test]
    async fn conforms_wherever_the_archive_ends() {
        let contract = Contract::parse("t.v1", r#"{"type":"record","name":"T","fields":[{"name":"x","type":"int"}]}"#);
        let contract = Arc::new(contract.unwrap());
        let encoder = Encoder::new(Arc::clone(&contract));
        let event = |x: i32| (0, encoder.encode(&json!({ "x": x })).unwrap());
        for archived in [0, 1, 13, 20] {
            let dir = tempfile::tempdir().unwrap();
            let log = Arc::new(EventLog::open(dir.path().join("log.redb")).unwrap());
            log.append("t", 0, (0..20).map(event).collect()).await.unwrap();
            let mut source = LogSource::new("t", Arc::clone(&log), Arc::clone(&contract), None).unwrap();
            let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
            let mut archive = ArchiveWriter::open(storage.clone(), "t", source.schema(), 6).await.unwrap();
            if let Some(batch) = source.read(0, 0, archived).await.unwrap().filter(|_| archived > 0) {
                archive.append(0, &batch.events, batch.next_offset).await.unwrap();
                archive.flush().await.unwrap();
            }
            let past = ArchiveReader::open(storage, "t", &contract).await.unwrap();
            assert_eq!(past.end(0), archived as i64);
            let mut source = Archived::new(Box::new(source), past);
            let add = async || log.append("t", 0, vec![event(20)]).await.map(|_| ()).map_err(|e| e.to_string());
            conformance::run(&mut source, 20, 0, add).await.unwrap();
        }
    }
}
