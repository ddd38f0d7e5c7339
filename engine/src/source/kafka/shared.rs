//! What a consumer's thread and its reader share.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use tokio::sync::watch;

use super::buffer::Buffer;
use super::complaint::Complaint;
use crate::metrics::Metrics;

/// Between the consumer's thread and the reader.
#[derive(Debug)]
pub struct Shared {
    pub(super) topic: String,
    pub(super) complaint: Complaint,
    state: Mutex<State>,
    /// The reader has taken something, or wants something.
    pub(super) room: Condvar,
    /// Changes whenever there may be something new to read.
    news: watch::Sender<u64>,
    /// Counts rebalances.
    pub(super) generation: AtomicU64,
    pub(super) max_bytes: usize,
    pub(super) metrics: Metrics,
    pub(super) source: String,
}

#[derive(Debug, Default)]
pub struct State {
    /// The partitions that are assigned, with the rebalance that brought each.
    pub partitions: BTreeMap<i32, (u64, Buffer)>,
    /// Kafka has assigned partitions at least once (maybe none).
    pub assigned: bool,
    /// What is wrong, while it is.
    pub error: Option<String>,
    pub(super) commit: Option<BTreeMap<i32, i64>>,
    pub(super) stop: bool,
}

impl Shared {
    pub fn new((source, topic): (&str, &str), max_bytes: usize, metrics: Metrics) -> Self {
        Shared {
            topic: topic.to_owned(),
            complaint: Complaint::default(),
            state: Mutex::default(),
            room: Condvar::new(),
            news: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            max_bytes,
            metrics,
            source: source.to_owned(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Wakes the consumer: there is room, or a seek to do.
    pub fn taken(&self) {
        self.room.notify_all();
    }

    pub fn commit(&self, next: BTreeMap<i32, i64>) {
        self.lock().commit.get_or_insert_default().extend(next);
    }

    /// An error in words that help.
    pub(super) fn words(&self, error: &ClientError) -> String {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                format!("topic {} is not there; create it, or check the source's `topic`", self.topic)
            }
            _ => self.complaint.beside(error),
        }
    }

    pub(super) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}
