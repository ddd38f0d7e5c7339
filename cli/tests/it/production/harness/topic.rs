//! A topic of payments, and who writes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::Value as Json;
use tidemark_engine::source::kafka::{KafkaConfig, KafkaProducer, Record};
use tidemark_engine::source::{Contract, Encoder, SchemaRegistry};

use super::{PARTITIONS, kafka_tool, service, unique};
use crate::crash::{SPAN, START};
use crate::support::CONTRACT;

pub struct Topic {
    pub name: String,
    pub brokers: String,
    /// Of Kafka's clients.
    pub options: BTreeMap<String, String>,
    pub partitions: u32,
    pub producer: KafkaProducer,
    encoder: Encoder,
    sent: usize,
    /// User and id of each event that was sent.
    events: Vec<(i64, String)>,
    messages: Arc<AtomicUsize>,
}

impl Topic {
    pub async fn new(test: &str) -> Self {
        Self::at(&service("KAFKA_BROKERS", "kafka"), test, PARTITIONS).await
    }

    pub async fn at(brokers: &str, test: &str, partitions: u32) -> Self {
        Self::of(KafkaConfig { brokers: brokers.to_owned(), options: BTreeMap::new() }, test, partitions).await
    }

    pub async fn of(client: KafkaConfig, test: &str, partitions: u32) -> Self {
        let name = unique(test);
        let registry = SchemaRegistry::new(&service("SCHEMA_REGISTRY_URL", "registry")).unwrap();
        let contract = Arc::new(Contract::parse("payments.v1", CONTRACT).unwrap());
        let id = registry.register(&format!("{name}-value"), &contract).unwrap();
        let producer = KafkaProducer::new(&client).unwrap();
        assert!(producer.create_topic(&name, Some(partitions), true).await.unwrap());
        let encoder = Encoder::new(contract).framed_by(id);
        let (KafkaConfig { brokers, options }, events, messages) = (client, vec![], Arc::default());
        Self { name, brokers, options, partitions, producer, encoder, sent: 0, events, messages }
    }

    pub fn producer_of(brokers: &str) -> KafkaProducer {
        KafkaProducer::new(&KafkaConfig { brokers: brokers.to_owned(), options: BTreeMap::new() }).unwrap()
    }

    /// Deletes the messages of a partition below an offset, as retention does.
    pub async fn forget(&self, partition: i32, below: i64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = serde_json::json!({"topic": self.name, "partition": partition, "offset": below});
        std::fs::write(file.path(), serde_json::json!({"partitions": [place], "version": 1}).to_string()).unwrap();
        let args = ["--bootstrap-server", &self.brokers, "--offset-json-file", file.path().to_str().unwrap()];
        kafka_tool("org.apache.kafka.tools.DeleteRecordsCommand", &args).unwrap();
    }

    /// Kafka's own tool for topics, on this one.
    pub fn tool(&self, args: &[&str]) -> Result<String, String> {
        let topic = ["--bootstrap-server", &self.brokers, "--topic", &self.name];
        kafka_tool("org.apache.kafka.tools.TopicCommand", &[&topic, args].concat())
    }

    /// Events as messages, each under its id so that what is sent twice lands in one partition; and one in a hundred
    /// that nobody can read.
    pub async fn send(&mut self, events: &[Json]) {
        self.send_keyed(events, "id").await;
    }

    pub async fn send_keyed(&mut self, events: &[Json], key: &str) {
        let mut records = vec![];
        for event in events {
            let payload = self.encoder.encode(event).unwrap();
            let key = Some(event[key].to_string().into_bytes());
            let timestamp = (START + SPAN) / 1000;
            let record = |payload| Record { key: key.clone(), payload, timestamp, ..Record::default() };
            if self.sent % 100 == 7 {
                records.push(record(poison(self.sent / 100, &payload)));
            }
            records.push(record(Some(payload)));
            self.sent += 1;
            self.events.push((event["user_id"].as_i64().unwrap(), event["id"].to_string()));
        }
        self.put(records).await;
    }

    /// Messages as they are, each to the partition that is named.
    pub async fn send_raw(&mut self, messages: Vec<(i32, Option<Bytes>)>) {
        self.send_at((START + SPAN) / 1000, messages).await;
    }

    /// As [`Topic::send_raw`], of another time than the others, in milliseconds.
    pub async fn send_at(&mut self, timestamp: i64, messages: Vec<(i32, Option<Bytes>)>) {
        let record =
            |(partition, payload)| Record { partition: Some(partition), payload, timestamp, ..Record::default() };
        self.put(messages.into_iter().map(record).collect()).await;
    }

    /// Messages that have no key, wherever Kafka's client puts them.
    pub async fn send_without_keys(&mut self, payloads: Vec<Bytes>) {
        let timestamp = (START + SPAN) / 1000;
        let record = |payload| Record { payload: Some(payload), timestamp, ..Record::default() };
        self.put(payloads.into_iter().map(record).collect()).await;
    }

    async fn put(&mut self, records: Vec<Record>) {
        self.producer.send(&self.name, &records).await.unwrap();
        self.messages.fetch_add(records.len(), Ordering::SeqCst);
    }

    /// Messages that Kafka has acknowledged so far, whoever wrote them through this topic.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }

    /// As [`Topic::messages`], for a thread that looks while others send.
    pub fn counter(&self) -> impl Fn() -> usize + Send + 'static {
        let messages = self.messages.clone();
        move || messages.load(Ordering::SeqCst)
    }

    /// An encoder of another contract, registered as the next version of the topic's.
    pub fn version(&self, contract: &str) -> Encoder {
        let registry = SchemaRegistry::new(&service("SCHEMA_REGISTRY_URL", "registry")).unwrap();
        let contract = Arc::new(Contract::parse("payments.v2", contract).unwrap());
        let id = registry.register(&format!("{}-value", self.name), &contract).unwrap();
        Encoder::new(contract).framed_by(id)
    }

    pub fn poisoned(&self) -> usize {
        (self.sent + 92) / 100
    }

    /// Events that were sent, with those that were sent twice, twice.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// How many events of each user were sent: with what was sent twice counted once, or twice.
    pub fn counts(&self, twice: bool) -> BTreeMap<i64, i64> {
        let mut counts = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (user, id) in &self.events {
            if seen.insert(id) || twice {
                *counts.entry(*user).or_default() += 1;
            }
        }
        counts
    }
}

/// Every kind of message that can't be an event.
fn poison(kind: usize, whole: &Bytes) -> Option<Bytes> {
    match kind % 6 {
        0 => None,
        1 => Some(whole.slice(..whole.len() - 3)),
        2 => Some(Bytes::from_static(b"{\"id\": \"json\"}")),
        3 => Some([&[0, 0x7f, 0xff, 0xff, 0xff], &whole[5..]].concat().into()),
        4 => Some([whole.as_ref(), b"more"].concat().into()),
        _ => Some(Bytes::new()),
    }
}
