//! Events in: pushed as JSON, or appended as encoded datums.
//!
//! Guarantee: taken means durable, in the embedded log or on all of Kafka's replicas.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as Json;

use super::{Events, Kafka, KafkaSettings, PlatformError};
use crate::catalog::Source;
use crate::plan::Project;
use crate::source::kafka::Record;
use crate::source::{Encoder, partition_of};

/// Why one pushed record was refused, or at which offset it was taken.
pub type Pushed = Result<i64, String>;

/// An event that is encoded to its source's contract.
#[derive(Debug, Clone)]
pub struct Datum {
    /// When it comes in, microseconds UTC.
    pub at: i64,
    /// Events of one key stay in one partition, in order.
    pub key: String,
    /// Avro, without a header.
    pub bytes: Vec<u8>,
}

/// Where events come in: a project's sources, and the log or Kafka that they are in.
#[derive(Debug)]
pub struct Intake {
    pub project: Arc<Project>,
    pub events: Events,
}

impl Intake {
    /// Kafka alone: for who sends events and reads none.
    pub fn kafka(project: Arc<Project>, settings: KafkaSettings) -> Result<Intake, PlatformError> {
        Ok(Intake { project, events: Events::Kafka(Box::new(Kafka::new(settings)?)) })
    }

    /// Makes the topics of the project's sources that aren't there; in the embedded log they need no making.
    pub async fn create_topics(&self) -> Result<(), PlatformError> {
        if let Events::Kafka(kafka) = &self.events {
            for source in self.project.sources.values().filter(|source| source.contract.is_some()) {
                kafka.create_topic(source).await?;
            }
        }
        Ok(())
    }

    /// Appends events to a source, each taken or refused by itself.
    pub async fn push(&self, source: &str, records: &[Json], now: i64) -> Result<Vec<Pushed>, PlatformError> {
        let (source, encoder) = self.encoder(source).await?;
        let encoder = encoder.checking(&source.timestamp, source.options.max_future);
        let mut messages = vec![];
        let mut answers: Vec<Pushed> = Vec::with_capacity(records.len());
        let mut places = vec![];
        for (i, record) in encoder.encode_batch(records, now).into_iter().enumerate() {
            match record {
                Ok(payload) => {
                    places.push(i);
                    messages.push((now, key(&source, &records[i], &payload), payload));
                    answers.push(Ok(0));
                }
                Err(refused) => answers.push(Err(refused.to_string())),
            }
        }
        for (place, offset) in places.into_iter().zip(self.send(&source, messages).await?) {
            answers[place] = Ok(offset);
        }
        Ok(answers)
    }

    /// Appends events that are already encoded: generators and loaders.
    pub async fn append(&self, source: &str, datums: Vec<Datum>) -> Result<(), PlatformError> {
        let (source, encoder) = self.encoder(source).await?;
        let framed = datums.into_iter().map(|datum| (datum.at, datum.key, encoder.frame(&datum.bytes))).collect();
        self.send(&source, framed).await.map(|_| ())
    }

    /// Sends messages (when, key, payload); returns the offset of each.
    async fn send(&self, source: &Source, messages: Vec<(i64, String, Bytes)>) -> Result<Vec<i64>, PlatformError> {
        let log = match &self.events {
            Events::Kafka(kafka) => {
                let records = messages.into_iter().map(|(at, key, payload)| Record {
                    key: Some(key.into_bytes()),
                    partition: None,
                    payload: Some(payload),
                    timestamp: at.div_euclid(1000),
                    headers: vec![],
                });
                let records: Vec<Record> = records.collect();
                let places = kafka.producer(source)?.send(source.topic(), &records).await?;
                return Ok(places.into_iter().map(|(_, offset)| offset).collect());
            }
            Events::Log(log) => log,
        };
        let n = source.partitions();
        let mut by_partition: Vec<Batch> = vec![Batch::default(); n as usize];
        let mut offsets = vec![0; messages.len()];
        for (place, (at, key, payload)) in messages.into_iter().enumerate() {
            let partition = partition_of(&key, n as i32);
            if let Some(batch) = by_partition.get_mut(partition as usize) {
                batch.places.push(place);
                batch.messages.push((at, payload));
            }
        }
        for (partition, batch) in (0i32..).zip(by_partition).filter(|(_, batch)| !batch.places.is_empty()) {
            let first = log.append(&source.name, partition, batch.messages).await?;
            for (offset, place) in (first..).zip(batch.places) {
                offsets[place] = offset;
            }
        }
        Ok(offsets)
    }

    async fn encoder(&self, source: &str) -> Result<(Arc<Source>, Encoder), PlatformError> {
        let found = self.project.sources.get(source).ok_or_else(|| PlatformError::UnknownSource(source.to_owned()))?;
        let contract = found.contract.clone().ok_or_else(|| PlatformError::NotPushable(source.to_owned()))?;
        let encoder = Encoder::new(contract.clone());
        match &self.events {
            Events::Log(_) => Ok((found.clone(), encoder)),
            Events::Kafka(kafka) => Ok((found.clone(), encoder.framed_by(kafka.schema_id(found, contract).await?))),
        }
    }
}

/// An event sent twice must land in the same partition: it is chosen by the event id, or else by the bytes.
fn key(source: &Source, record: &Json, payload: &[u8]) -> String {
    match source.event_id.as_ref().and_then(|id| record.get(id)) {
        Some(id) => id.to_string(),
        None => crc32fast::hash(payload).to_string(),
    }
}

/// What one push brings to a partition: where each record stood in the push, and its message.
#[derive(Debug, Clone, Default)]
struct Batch {
    places: Vec<usize>,
    messages: Vec<(i64, Bytes)>,
}
