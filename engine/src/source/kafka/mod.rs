//! Kafka: topics as event sources, and as where events and dead letters go.
//!
//! # Guarantees
//!
//! * A [`KafkaSource`] reads from where its reader says, never from where the group's committed offset is: that is for
//!   others to see. So what is read again after a crash follows from what is stored.
//! * Partitions come and go as Kafka assigns them, cooperatively: those that stay are read on meanwhile.
//! * It holds a bounded number of bytes. A reader that stands still (the store is down) stays a member of its group.
//! * What a [`KafkaProducer`] says is delivered, all replicas have, once: idempotent, `acks=all`.
//!
//! The key of a message is not looked at, so that it may be null: entity keys come from the event. A tombstone (a message
//! without a value) is no event and goes to the dead letters.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

mod buffer;
mod callbacks;
mod complaint;
mod consumer;
mod dead_letters;
mod producer;
mod shared;
mod source;

pub use dead_letters::{KafkaDeadLetters, Replayed, TopicLetter, replay, topic_letters};
pub use producer::{KafkaProducer, Record};
pub use source::{KafkaSource, Subscription};

/// Where Kafka is, and what its clients are told.
#[derive(Clone, Default)]
pub struct KafkaConfig {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// Options of librdkafka, such as `security.protocol`, as its documentation has them.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    /// Without the options' values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("options", &options).finish()
    }
}

/// Something that Kafka can't do, or not now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KafkaError {
    #[error("Kafka client: {cause}; hint: options are librdkafka's, see its CONFIGURATION.md")]
    Config { cause: String },
    #[error("option kafka.{option} can't be set: {why}")]
    Fixed { option: String, why: &'static str },
    #[error("topic {topic} at {brokers}: {what}: {cause}")]
    Broker { brokers: String, topic: String, what: &'static str, cause: String },
}

/// What the guarantees rest on.
const FIXED: [(&str, &str, &str); 6] = [
    ("enable.auto.commit", "false", "an offset is committed once its events are durable"),
    ("enable.auto.offset.store", "false", "an offset is committed once its events are durable"),
    ("enable.partition.eof", "true", "it tells when a partition is read to its end"),
    ("auto.offset.reset", "earliest", "`start` says where a source begins that was never read"),
    ("enable.idempotence", "true", "an event that is sent again must not be there twice"),
    ("acks", "all", "an event that is acknowledged must not be lost"),
];

/// Options of consumers that producers don't know, and the other way round.
const OF_CONSUMERS: [&str; 4] =
    ["enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof", "auto.offset.reset"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Consumer,
    Producer,
}

impl KafkaConfig {
    /// These options over the ones that are there.
    pub fn with(mut self, options: &BTreeMap<String, String>) -> KafkaConfig {
        self.options.extend(options.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    fn client(&self, role: Role, defaults: &[(&str, &str)]) -> Result<ClientConfig, KafkaError> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "tidemark");
        // Connections that fail are logged as information: a client's complaints are made of that.
        client.set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in defaults {
            client.set(*key, *value);
        }
        for (key, value) in &self.options {
            if let Some((option, _, why)) = FIXED.iter().find(|(fixed, needed, _)| fixed == key && needed != value) {
                return Err(KafkaError::Fixed { option: (*option).to_owned(), why });
            }
            client.set(key, value);
        }
        for (key, value, _) in FIXED {
            if OF_CONSUMERS.contains(&key) == (role == Role::Consumer) {
                client.set(key, value);
            }
        }
        Ok(client)
    }

    fn failed<E: fmt::Display>(&self, topic: &str, what: &'static str) -> impl Fn(E) -> KafkaError {
        let (brokers, topic) = (self.brokers.clone(), topic.to_owned());
        move |cause| KafkaError::Broker {
            brokers: brokers.clone(),
            topic: topic.clone(),
            what,
            cause: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guarantees_rest_on_cant_be_set() {
        let config = |key: &str, value: &str| KafkaConfig {
            brokers: "127.0.0.1:1".into(),
            options: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        };
        let refused = config("enable.auto.commit", "true").client(Role::Consumer, &[]).unwrap_err().to_string();
        assert!(refused.contains("kafka.enable.auto.commit can't be set: an offset is committed once"), "{refused}");
        let client = config("acks", "all").client(Role::Producer, &[("linger.ms", "5")]).unwrap();
        assert_eq!((client.get("acks"), client.get("linger.ms")), (Some("all"), Some("5")));
        assert_eq!(client.get("enable.auto.commit"), None);
        let secret = config("sasl.password", "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let client = secret.with(&BTreeMap::from([("sasl.password".into(), "other".into())]));
        assert_eq!(client.client(Role::Consumer, &[]).unwrap().get("sasl.password"), Some("other"));
    }
}
