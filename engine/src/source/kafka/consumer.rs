//! One consumer on a thread of its own: it polls, so that the group knows that it lives, whatever its reader does.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::callbacks::Context;
use super::complaint::misconfigured;
use super::shared::Shared;
use super::{KafkaConfig, KafkaError, Role};
use crate::metrics::Metrics;
use crate::source::Message;

/// How long a poll waits for a message; seeks and commits wait as long.
const POLL: Duration = Duration::from_millis(50);
/// How long the broker may take to answer a question.
pub const ANSWER: Duration = Duration::from_secs(10);
/// Messages that are handed over at once.
const HAND_OVER: usize = 2000;
/// A reader that stands still for so long has its partitions paused, so that polling can go on.
const STANDSTILL: Duration = Duration::from_secs(5);

const DEFAULTS: [(&str, &str); 6] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // An instance that died is missed after this, not after the 45 seconds that librdkafka gives it.
    ("session.timeout.ms", "10000"),
    // New partitions are found this soon.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("statistics.interval.ms", "1000"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.wait.max.ms", "100"),
];

/// Reads one topic as a member of a group.
pub struct Consumer {
    pub shared: Arc<Shared>,
    pub client: Arc<BaseConsumer<Context>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Consumer {
    pub fn start(
        config: &KafkaConfig,
        (source, topic, group): (&str, &str, &str),
        max_bytes: usize,
        metrics: Metrics,
    ) -> Result<Consumer, KafkaError> {
        let mut client = config.client(Role::Consumer, &DEFAULTS)?;
        if client.get("group.id").is_none() {
            client.set("group.id", group);
        }
        let shared = Arc::new(Shared::new((source, topic), max_bytes, metrics));
        let context = Context { shared: shared.clone() };
        let client: BaseConsumer<Context> = client.create_with_context(context).map_err(misconfigured)?;
        client.subscribe(&[topic]).map_err(misconfigured)?;
        let client = Arc::new(client);
        let thread = {
            let (shared, client) = (shared.clone(), client.clone());
            std::thread::Builder::new()
                .name(format!("kafka-{source}"))
                .spawn(move || run(&shared, &client))
                .map_err(|e| KafkaError::Config { cause: format!("its thread can't start: {e}") })?
        };
        Ok(Consumer { shared, client, thread: Some(thread) })
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("topic", &self.shared.topic).finish_non_exhaustive()
    }
}

impl Drop for Consumer {
    /// Leaves the group, so that others needn't wait until it is missed.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to save.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, client: &BaseConsumer<Context>) {
    let mut full_since: Option<Instant> = None;
    let mut paused = false;
    loop {
        let stop = shared.lock().stop;
        ask_again(shared, client);
        commit(shared, client, if stop { CommitMode::Sync } else { CommitMode::Async });
        if stop {
            return;
        }
        seek(shared, client);
        let full =
            shared.lock().partitions.values().map(|(_, buffer)| buffer.bytes()).sum::<usize>() >= shared.max_bytes;
        if !full {
            full_since = None;
            if std::mem::take(&mut paused) {
                let _ = client.assignment().and_then(|all| client.resume(&all));
            }
            fetch(shared, client);
            continue;
        }
        let since = *full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < STANDSTILL {
            let state = shared.lock();
            drop(shared.room.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner));
            continue;
        }
        // The group takes who doesn't poll for dead. Messages that come although all is paused are few.
        if !paused {
            paused = client.assignment().and_then(|all| client.pause(&all)).is_ok();
        }
        fetch(shared, client);
    }
}

/// Polls for messages and hands them over.
fn fetch(shared: &Shared, client: &BaseConsumer<Context>) {
    let mut fetched: Vec<(u64, i32, Message)> = vec![];
    let mut ended: Vec<(u64, i32)> = vec![];
    let mut wait = POLL;
    while fetched.len() < HAND_OVER {
        match client.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                let generation = shared.generation.load(Ordering::Acquire);
                fetched.push((generation, message.partition(), taken(&message)));
            }
            Some(Err(ClientError::PartitionEOF(partition))) => {
                ended.push((shared.generation.load(Ordering::Acquire), partition));
                break;
            }
            Some(Err(error)) => {
                shared.lock().error = Some(shared.words(&error));
                shared.tell();
                break;
            }
        }
        wait = Duration::ZERO;
    }
    if fetched.is_empty() && ended.is_empty() {
        return;
    }
    let mut state = shared.lock();
    state.error = None;
    for (generation, partition, message) in fetched {
        // What was polled before the partition went away and came back is of another time.
        if let Some((_, buffer)) = state.partitions.get_mut(&partition).filter(|(since, _)| *since <= generation) {
            buffer.push(message);
        }
    }
    for (generation, partition) in ended {
        if let Some((_, buffer)) = state.partitions.get_mut(&partition).filter(|(since, _)| *since <= generation) {
            buffer.reached_end();
        }
    }
    drop(state);
    shared.tell();
}

fn taken(message: &BorrowedMessage<'_>) -> Message {
    let millis = message.timestamp().to_millis().unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Message { offset: message.offset(), ingested_at: millis.saturating_mul(1000), payload }
}

/// Does the seeks that readers asked for. One that fails is tried again.
fn seek(shared: &Shared, client: &BaseConsumer<Context>) {
    let wanted: Vec<(i32, i64)> =
        shared.lock().partitions.iter().filter_map(|(p, (_, buffer))| Some((*p, buffer.seek?))).collect();
    for (partition, offset) in wanted {
        // The end is asked for first: what is empty up to it then is empty for good.
        let sought = client.fetch_watermarks(&shared.topic, partition, ANSWER).and_then(|(low, end)| {
            client.seek(&shared.topic, partition, Offset::Offset(offset.max(low)), ANSWER)?;
            Ok((low, end))
        });
        let mut state = shared.lock();
        match sought {
            Ok((low, end)) => {
                if offset > end {
                    // Were it sought, the client would begin somewhere else.
                    state.error = Some(shrunk(partition, end, offset));
                    drop(state);
                    shared.tell();
                    std::thread::sleep(POLL);
                    continue;
                }
                if offset < low {
                    lose(shared, partition, offset, low);
                }
                if let Some((_, buffer)) = state.partitions.get_mut(&partition) {
                    buffer.sought(offset, end);
                }
            }
            // A partition that was just assigned can't seek until its fetcher runs.
            Err(ClientError::Seek(cause)) if cause.contains("Erroneous state") => {
                drop(state);
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => {
                state.error = Some(shared.words(&error));
                drop(state);
                shared.tell();
            }
        }
    }
}

/// Whether a broker tells of topics what was asked; one that isn't there has no partitions.
pub fn check_topics(metadata: &Metadata) -> Result<(), ClientError> {
    match metadata.topics().iter().find_map(|topic| topic.error()).map(Code::from) {
        None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => Ok(()),
        Some(code) => Err(ClientError::MetadataFetch(code)),
    }
}

/// Asks where partitions begin and end that may be other ones than they were, or from which the fetcher skipped something:
/// retention may have taken it, but transaction markers and compaction skip too.
fn ask_again(shared: &Shared, client: &BaseConsumer<Context>) {
    let mut asked = vec![];
    for (partition, (_, buffer)) in &mut shared.lock().partitions {
        let (gap, doubtful) = (buffer.gap.take(), std::mem::take(&mut buffer.doubtful));
        if gap.is_some() || doubtful {
            asked.push((*partition, gap, buffer.reached()));
        }
    }
    for (partition, gap, reached) in asked {
        let Ok((low, end)) = client.fetch_watermarks(&shared.topic, partition, ANSWER) else { continue };
        if let Some((from, to)) = gap.filter(|(from, _)| low > *from) {
            lose(shared, partition, from, low.min(to));
        }
        if let Some((_, buffer)) = shared.lock().partitions.get_mut(&partition) {
            buffer.ends_at(end, reached);
        }
    }
}

fn lose(shared: &Shared, partition: i32, from: i64, to: i64) {
    let source = shared.source.as_str();
    tracing::error!(source, partition, from, to, "Kafka's retention took events before they were read");
    shared.metrics.lost.with_label_values(&[source]).inc_by(to.saturating_sub(from).unsigned_abs());
}

pub fn shrunk(partition: i32, end: i64, read: i64) -> String {
    format!(
        "partition {partition} ends at offset {end}, before {read}, up to which it was read: was the topic deleted and \
         made anew? Stop the engines; begin with an empty archive and another project name, or restore the topic"
    )
}

fn commit(shared: &Shared, client: &BaseConsumer<Context>, mode: CommitMode) {
    let (next, owned) = {
        let mut state = shared.lock();
        let Some(next) = state.commit.take() else { return };
        (next, state.partitions.keys().copied().collect::<Vec<_>>())
    };
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in next.into_iter().filter(|(partition, _)| owned.contains(partition)) {
        // An offset that can't be is not worth stopping for: the committed offset is for others to see.
        let _ = offsets.add_partition_offset(&shared.topic, partition, Offset::Offset(next));
    }
    if offsets.count() > 0
        && let Err(error) = client.commit(&offsets, mode)
    {
        tracing::warn!(topic = shared.topic, %error, "an offset is not committed to Kafka");
    }
}
