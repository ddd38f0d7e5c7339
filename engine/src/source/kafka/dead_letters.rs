//! Dead letters in a topic: the message as it came, and headers that say where from and why.
//!
//! | header | |
//! | --- | --- |
//! | `tidemark.source` | the source's name |
//! | `tidemark.topic`, `tidemark.partition`, `tidemark.offset` | where the message is |
//! | `tidemark.time` | when the source took it in, RFC 3339 |
//! | `tidemark.reason` | what is wrong with it |
//! | `tidemark.truncated` | only if the message is longer than a letter may be: how long it is |
//!
//! A letter is in the topic before its offset is committed. A crash in between sends it again, under the same key
//! (`<source>/<partition>-<offset>`): who reads the topic takes each key once, as [`topic_letters`] does. A tombstone takes a
//! letter back that was sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::complaint::{Complaint, misconfigured};
use super::consumer::{ANSWER, check_topics};
use super::producer::{KafkaProducer, Record};
use super::{KafkaConfig, KafkaError, Role};
use crate::source::{DeadLetters, Reject, SourceError};

const SOURCE: &str = "tidemark.source";
const TOPIC: &str = "tidemark.topic";
const PARTITION: &str = "tidemark.partition";
const OFFSET: &str = "tidemark.offset";
const TIME: &str = "tidemark.time";
const REASON: &str = "tidemark.reason";
const TRUNCATED: &str = "tidemark.truncated";
/// Bytes of a message that a letter holds, and of a reason: with its headers it must pass where the message did, and brokers
/// take a million bytes unless they are told otherwise.
const MAX_PAYLOAD: usize = 900_000;
const MAX_REASON: usize = 8_000;

/// Writes the rejects of one source.
#[derive(Debug)]
pub struct KafkaDeadLetters {
    producer: KafkaProducer,
    source: String,
    /// Where the source's events come from, and where its rejects go.
    from: String,
    to: String,
    /// By partition and offset: what is read again is the same letter.
    waiting: BTreeMap<i32, BTreeMap<i64, Reject>>,
}

impl KafkaDeadLetters {
    pub fn new(producer: KafkaProducer, source: &str, from: &str, to: &str) -> Self {
        Self { producer, source: source.into(), from: from.into(), to: to.into(), waiting: BTreeMap::new() }
    }

    fn record(&self, partition: i32, reject: &Reject) -> Record {
        let time = DateTime::from_timestamp_micros(reject.ingested_at).unwrap_or_default();
        let now = chrono::Utc::now().timestamp_millis();
        let mut reason = reject.reason.clone();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let mut headers = vec![
            (SOURCE, self.source.clone()),
            (TOPIC, self.from.clone()),
            (PARTITION, partition.to_string()),
            (OFFSET, reject.offset.to_string()),
            (TIME, time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            (REASON, reason),
        ];
        if reject.payload.len() > MAX_PAYLOAD {
            headers.push((TRUNCATED, reject.payload.len().to_string()));
        }
        Record {
            key: Some(key(&self.source, partition, reject.offset)),
            partition: None,
            payload: Some(reject.payload.slice(..reject.payload.len().min(MAX_PAYLOAD))),
            // Of the letter, not of the message: the topic's retention goes by it.
            timestamp: now,
            headers,
        }
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    fn append(&mut self, partition: i32, rejects: &[Reject]) {
        let letters = rejects.iter().map(|reject| (reject.offset, reject.clone()));
        self.waiting.entry(partition).or_default().extend(letters);
    }

    async fn flush(&mut self) -> Result<(), SourceError> {
        let records: Vec<Record> = self
            .waiting
            .iter()
            .flat_map(|(partition, rejects)| rejects.values().map(|reject| self.record(*partition, reject)))
            .collect();
        let sent = self.producer.send(&self.to, &records).await;
        sent.map_err(|error| SourceError::Kafka { source_name: self.source.clone(), error })?;
        self.waiting.clear();
        Ok(())
    }

    fn release(&mut self, partition: i32) {
        self.waiting.remove(&partition);
    }
}

/// A dead letter in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLetter {
    pub source: String,
    /// Where the message was read.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// When the source took it in, RFC 3339.
    pub time: String,
    pub reason: String,
    /// Whether the payload is only the message's beginning.
    pub truncated: bool,
    pub payload: Bytes,
}

fn key(source: &str, partition: i32, offset: i64) -> Vec<u8> {
    format!("{source}/{partition}-{offset}").into_bytes()
}

/// The source, partition and offset that a letter's key says.
fn place(key: &[u8]) -> Option<(String, i32, i64)> {
    let (source, place) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    let (partition, offset) = place.rsplit_once('-')?;
    Some((source.to_owned(), partition.parse().ok()?, offset.parse().ok()?))
}

/// What became of letters that were to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    pub sent: u64,
    /// Events that were taken, and failed in a view only: to send them again would count them twice. And those of which
    /// the letter holds a part.
    pub kept: u64,
}

/// Sends letters to the topic that they came from, as new messages, and takes them out of the dead letters: both or
/// neither, in one transaction.
pub async fn replay(
    config: &KafkaConfig,
    to: &str,
    letters_in: &str,
    letters: Vec<TopicLetter>,
) -> Result<Replayed, KafkaError> {
    let now = chrono::Utc::now().timestamp_millis();
    // What was taken has its event as JSON in the letter, which is no message of the topic.
    let (sent, kept): (Vec<TopicLetter>, Vec<_>) =
        letters.into_iter().partition(|letter| !letter.truncated && !letter.reason.starts_with("view "));
    let record = |letter: &TopicLetter, payload| Record {
        key: Some(key(&letter.source, letter.partition, letter.offset)),
        partition: None,
        payload,
        timestamp: now,
        headers: vec![],
    };
    let again: Vec<Record> = sent.iter().map(|letter| record(letter, Some(letter.payload.clone()))).collect();
    let done: Vec<Record> = sent.iter().map(|letter| record(letter, None)).collect();
    if !sent.is_empty() {
        let producer = KafkaProducer::transactional(config, &format!("tidemark-replay-{letters_in}"))?;
        producer.together(&[(to, &again), (letters_in, &done)]).await?;
    }
    Ok(Replayed { sent: sent.len() as u64, kept: kept.len() as u64 })
}

/// All dead letters that a topic holds now, each once, by the partition and offset of the message. Waits for the broker.
pub fn topic_letters(config: &KafkaConfig, topic: &str) -> Result<Vec<TopicLetter>, KafkaError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut client = config.client(Role::Consumer, &[])?;
    // librdkafka wants a name, though nothing is joined and nothing committed.
    client.set("group.id", "tidemark-dead-letters");
    let consumer: BaseConsumer<Complaint> = client.create_with_context(Complaint::default()).map_err(misconfigured)?;
    let failed = |e: rdkafka::error::KafkaError| {
        // Its complaints come when it is polled.
        let _ = consumer.poll(Duration::from_millis(100));
        config.failed(topic, "can't be read")(consumer.context().beside(&e))
    };
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(failed)?;
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeSet::new();
    check_topics(&metadata).map_err(failed)?;
    for partition in metadata.topics().iter().flat_map(|found| found.partitions()) {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), ANSWER).map_err(failed)?;
        if low < high {
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low)).map_err(failed)?;
            ends.insert(partition.id());
        }
    }
    consumer.assign(&assignment).map_err(failed)?;
    let mut letters = BTreeMap::new();
    let mut heard = Instant::now();
    while !ends.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            if heard.elapsed() > PATIENCE {
                return Err(config.failed(topic, "can't be read")("no message came for 30 seconds"));
            }
            continue;
        };
        heard = Instant::now();
        let message = match message {
            // Not by offsets: the last of them may be a transaction's marker.
            Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => {
                ends.remove(&partition);
                continue;
            }
            message => message.map_err(failed)?,
        };
        let header = |name: &str| {
            let headers = message.headers()?;
            let value = headers.iter().find(|header| header.key == name)?.value?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let number = |name: &str| header(name).and_then(|text| text.parse::<i64>().ok());
        if message.payload().is_none() {
            if let Some(gone) = message.key().and_then(place) {
                letters.remove(&gone);
            }
            continue;
        }
        // Who else writes to the topic knows what it is.
        let (Some(partition), Some(offset)) = (number(PARTITION), number(OFFSET)) else { continue };
        let letter = TopicLetter {
            source: header(SOURCE).unwrap_or_default(),
            topic: header(TOPIC).unwrap_or_default(),
            partition: i32::try_from(partition).unwrap_or(-1),
            offset,
            time: header(TIME).unwrap_or_default(),
            reason: header(REASON).unwrap_or_default(),
            truncated: header(TRUNCATED).is_some(),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        };
        letters.insert((letter.source.clone(), letter.partition, letter.offset), letter);
    }
    Ok(letters.into_values().collect())
}
