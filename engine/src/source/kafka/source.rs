//! A topic as an event source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::KafkaConfig;
use super::buffer::{Buffer, Taken};
use super::callbacks::Context;
use super::consumer::{ANSWER, Consumer, check_topics, shrunk};
use crate::metrics::Metrics;
use crate::source::{Contract, Decoded, Decoder, EventSource, Message, SourceBatch, SourceError, WriterSchemas};
use crate::sql::Start;

/// Payload that one read takes at most, whatever its number of messages.
const READ_BYTES: usize = 64 << 20;
/// A wait ends after this: what stands still is looked at again.
const WAIT: Duration = Duration::from_secs(1);

/// What a [`KafkaSource`] reads, and as whom.
#[derive(Debug)]
pub struct Subscription {
    pub source: String,
    pub topic: String,
    /// The consumer group, unless the options name one.
    pub group: String,
    pub start: Start,
    pub contract: Arc<Contract>,
    /// See [`Decoder::new`].
    pub time: (String, i64),
    /// Bytes of messages to hold until they are read.
    pub max_bytes: usize,
}

/// One topic, decoded under its source's contract.
#[derive(Debug)]
pub struct KafkaSource {
    subscription: Subscription,
    config: KafkaConfig,
    consumer: Consumer,
    /// Behind a lock because a read decodes on another thread; only one read runs at a time.
    decoder: Arc<Mutex<Decoder>>,
    schema: SchemaRef,
    news: watch::Receiver<u64>,
    /// What is decoded already, or about to be.
    ahead: Option<Ahead>,
}

/// A read before it is asked for.
#[derive(Debug)]
struct Ahead {
    partition: i32,
    /// When the partition was assigned, and from which offset it was read.
    since: u64,
    from: i64,
    next: i64,
    decoded: JoinHandle<Result<Decoded, String>>,
}

impl KafkaSource {
    /// Joins the group. `writers` knows the schemas that messages were written with.
    pub fn open(
        config: &KafkaConfig,
        subscription: Subscription,
        writers: Arc<dyn WriterSchemas>,
        metrics: Metrics,
    ) -> Result<KafkaSource, SourceError> {
        let name = subscription.source.clone();
        let (column, max_future) = &subscription.time;
        let decoder = Decoder::new(subscription.contract.clone(), writers, Some((column, *max_future)))
            .map_err(|what| SourceError::Internal { source_name: name.clone(), what })?;
        let of = (name.as_str(), subscription.topic.as_str(), subscription.group.as_str());
        let consumer = Consumer::start(config, of, subscription.max_bytes, metrics)
            .map_err(|error| SourceError::Kafka { source_name: name.clone(), error })?;
        let (schema, news) = (decoder.schema(), consumer.shared.news());
        let decoder = Arc::new(Mutex::new(decoder));
        Ok(KafkaSource { subscription, config: config.clone(), consumer, decoder, schema, news, ahead: None })
    }

    /// Asks the broker something, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&BaseConsumer<Context>, &str) -> Result<T, rdkafka::error::KafkaError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (client, topic) = (self.consumer.client.clone(), self.subscription.topic.clone());
        match tokio::task::spawn_blocking(move || ask(&client, &topic)).await {
            Ok(answer) => answer.map_err(|e| self.broker(what, &self.consumer.shared.complaint.beside(&e))),
            Err(e) => Err(self.internal(format!("{what}: {e}"))),
        }
    }

    fn broker(&self, what: &'static str, cause: &str) -> SourceError {
        let error = self.config.failed(&self.subscription.topic, what)(cause);
        SourceError::Kafka { source_name: self.subscription.source.clone(), error }
    }

    fn internal(&self, what: String) -> SourceError {
        SourceError::Internal { source_name: self.subscription.source.clone(), what }
    }

    /// Decodes messages on a thread that may take its time; where the read after them goes on.
    fn decode(&self, partition: i32, from: i64, messages: Vec<Message>) -> (i64, JoinHandle<Result<Decoded, String>>) {
        let next = messages.last().map_or(from, |message| message.offset + 1);
        let decoder = self.decoder.clone();
        let decode = move || decoder.lock().unwrap_or_else(PoisonError::into_inner).decode(partition, &messages);
        (next, tokio::task::spawn_blocking(decode))
    }

    async fn watermarks(&self, partition: i32) -> Result<(i64, i64), SourceError> {
        let ask = move |client: &BaseConsumer<Context>, topic: &str| client.fetch_watermarks(topic, partition, ANSWER);
        self.ask("can't ask where a partition begins and ends", ask).await
    }
}

#[async_trait]
impl EventSource for KafkaSource {
    fn name(&self) -> &str {
        &self.subscription.source
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        // Seen before any read: what comes after it wakes the next `wait`.
        self.news.borrow_and_update();
        let state = self.consumer.shared.lock();
        let (assigned, partitions) = (state.assigned, state.partitions.keys().copied().collect());
        drop(state);
        match self.trouble() {
            Some(error) if !assigned => Err(error),
            _ => Ok(partitions),
        }
    }

    fn trouble(&self) -> Option<SourceError> {
        let error = self.consumer.shared.lock().error.clone();
        error.map(|cause| self.broker("can't be read", &cause))
    }

    async fn all_partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        let ask = |client: &BaseConsumer<Context>, topic: &str| {
            let metadata = client.fetch_metadata(Some(topic), ANSWER)?;
            check_topics(&metadata)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            Ok(found.map(|found| found.partitions().iter().map(|p| p.id()).collect::<Vec<i32>>()).unwrap_or_default())
        };
        let mut partitions = self.ask("can't ask for its partitions", ask).await?;
        if partitions.is_empty() {
            let cause = "it is not there; hint: create it, or check the source's `topic`";
            return Err(self.broker("has no partitions", cause));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Asks where the partitions end now: what was known may be from before others read and committed more.
    async fn begin(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        for partition in partitions {
            let buffered =
                self.consumer.shared.lock().partitions.get(partition).map(|(s, buffer)| (*s, buffer.reached()));
            let (_, end) = self.watermarks(*partition).await?;
            if let Some((since, buffer)) = self.consumer.shared.lock().partitions.get_mut(partition) {
                buffer.ends_at(end, buffered.filter(|(asked, _)| asked == since).and_then(|(_, reached)| reached));
            }
        }
        Ok(())
    }

    async fn start_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        match self.subscription.start {
            Start::Earliest => Ok(self.watermarks(partition).await?.0),
            Start::Latest => Ok(self.watermarks(partition).await?.1),
            // A partition that is shorter is read from its end.
            Start::Offset(offset) => {
                Ok(i64::try_from(offset).unwrap_or(i64::MAX).min(self.watermarks(partition).await?.1))
            }
            Start::Time(micros) => {
                let ask = move |client: &BaseConsumer<Context>, topic: &str| {
                    let mut times = TopicPartitionList::new();
                    let millis = micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0);
                    times.add_partition_offset(topic, partition, Offset::Offset(millis))?;
                    client.offsets_for_times(times, ANSWER)
                };
                let offsets = self.ask("can't ask for the offset at `start`", ask).await?;
                let found = offsets.elements().first().map(|element| element.offset());
                drop(offsets);
                match found {
                    Some(Offset::Offset(offset)) => Ok(offset),
                    // Nothing is as late as that.
                    _ => Ok(self.watermarks(partition).await?.1),
                }
            }
        }
    }

    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        let known = self.consumer.shared.lock().partitions.get(&partition).and_then(|(_, buffer)| buffer.end);
        if let Some(end) = known {
            return Ok(end);
        }
        let (_, end) = self.watermarks(partition).await?;
        if let Some((_, buffer)) = self.consumer.shared.lock().partitions.get_mut(&partition) {
            buffer.end = buffer.end.max(Some(end));
        }
        Ok(end)
    }

    async fn read(
        &mut self,
        partition: i32,
        from: i64,
        max_records: usize,
    ) -> Result<Option<SourceBatch>, SourceError> {
        let ahead = self.ahead.take_if(|ahead| ahead.partition == partition);
        let taken = match self.consumer.shared.lock().partitions.get_mut(&partition) {
            Some((_, Buffer { shrunk: Some((end, read)), .. })) => {
                return Err(self.broker("can't be read", &shrunk(partition, *end, *read)));
            }
            Some((since, buffer)) => match ahead.filter(|ahead| ahead.from == from && ahead.since == *since) {
                Some(ahead) => Err(ahead),
                None => Ok(buffer.read(from, max_records, READ_BYTES)),
            },
            // It was assigned to another instance meanwhile.
            None => return Ok(None),
        };
        self.consumer.shared.taken();
        let (next_offset, decoded) = match taken {
            Err(ahead) => (ahead.next, ahead.decoded),
            Ok(Taken::Messages(messages)) => self.decode(partition, from, messages),
            Ok(Taken::Gap(to)) => {
                let events = RecordBatch::new_empty(self.schema());
                let empty = SourceBatch { partition, first_offset: from, next_offset: to, events, rejects: vec![] };
                return Ok(Some(empty));
            }
            Ok(Taken::Nothing) => return Ok(None),
        };
        let decoded = decoded.await.map_err(|e| self.internal(e.to_string()))?;
        let decoded = decoded.map_err(|what| self.internal(what))?;
        let (events, rejects) = (decoded.events, decoded.rejects);
        Ok(Some(SourceBatch { partition, first_offset: from, next_offset, events, rejects }))
    }

    fn read_ahead(&mut self, partition: i32, from: i64, max_records: usize) {
        if self.ahead.is_some() {
            return;
        }
        let (since, taken) = match self.consumer.shared.lock().partitions.get_mut(&partition) {
            Some((since, buffer)) if buffer.has_much(from, max_records, READ_BYTES) => {
                (*since, buffer.read(from, max_records, READ_BYTES))
            }
            _ => return,
        };
        self.consumer.shared.taken();
        if let Taken::Messages(messages) = taken {
            let (next, decoded) = self.decode(partition, from, messages);
            self.ahead = Some(Ahead { partition, since, from, next, decoded });
        }
    }

    async fn commit(&mut self, next: &BTreeMap<i32, i64>) -> Result<(), SourceError> {
        self.consumer.shared.commit(next.clone());
        Ok(())
    }

    async fn exhausted(&mut self) -> Result<bool, SourceError> {
        let state = self.consumer.shared.lock();
        let holds =
            |ahead: &Ahead| state.partitions.get(&ahead.partition).is_some_and(|(since, _)| *since == ahead.since);
        Ok(state.assigned
            && !self.ahead.as_ref().is_some_and(holds)
            && state.partitions.values().all(|(_, buffer)| buffer.exhausted()))
    }

    async fn wait(&mut self) {
        let _ = tokio::time::timeout(WAIT, self.news.changed()).await;
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
