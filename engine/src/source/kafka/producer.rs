//! Messages into topics, durable before the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::complaint::{Complaint, misconfigured};
use super::{KafkaConfig, KafkaError, Role};

/// How long to wait for room in the client's queue.
const FULL: Duration = Duration::from_millis(5);
const DEFAULTS: [(&str, &str); 5] = [
    // As Java's clients choose partitions.
    ("partitioner", "murmur2_random"),
    ("compression.type", "zstd"),
    ("linger.ms", "5"),
    // Who sends waits for so long at most: dead letters hold up a stream.
    ("message.timeout.ms", "15000"),
    ("queue.buffering.max.kbytes", "65536"),
];

/// One message on its way.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Messages of one key stay in one partition, in order; those of none go to any.
    pub key: Option<Vec<u8>>,
    /// In place of the one that the key stands for.
    pub partition: Option<i32>,
    /// None is a tombstone: what has this key is gone.
    pub payload: Option<Bytes>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub headers: Vec<(&'static str, String)>,
}

/// A client that writes. Cheap to clone.
#[derive(Clone)]
pub struct KafkaProducer {
    config: KafkaConfig,
    client: Arc<ThreadedProducer<Deliveries>>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProducer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaProducer {
    pub fn new(config: &KafkaConfig) -> Result<KafkaProducer, KafkaError> {
        let client = config.client(Role::Producer, &DEFAULTS)?;
        let client = client.create_with_context(Deliveries::default()).map_err(misconfigured)?;
        Ok(KafkaProducer { config: config.clone(), client: Arc::new(client) })
    }

    /// A client whose messages come in transactions; of two of one id, the older is fenced.
    pub fn transactional(config: &KafkaConfig, id: &str) -> Result<KafkaProducer, KafkaError> {
        let mut config = config.clone();
        config.options.insert("transactional.id".to_owned(), id.to_owned());
        KafkaProducer::new(&config)
    }

    /// Sends messages to several topics in one transaction: who reads sees all or none.
    pub async fn together(&self, messages: &[(&str, &[Record])]) -> Result<(), KafkaError> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let first = messages.first().map_or("", |(topic, _)| *topic);
        let step = async |what: &'static str, run: fn(&ThreadedProducer<Deliveries>) -> Result<(), ClientError>| {
            let client = self.client.clone();
            let done = tokio::task::spawn_blocking(move || run(&client)).await;
            let failed = self.config.failed(first, what);
            done.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(self.complaint().beside(&e)))
        };
        step("can't begin a transaction", |client| {
            client.init_transactions(PATIENCE)?;
            client.begin_transaction()
        })
        .await?;
        for (topic, records) in messages {
            if let Err(error) = self.send(topic, records).await {
                // What isn't committed is never seen; who comes next with this id ends it, if this can't.
                let _ = step("can't abort", |client| client.abort_transaction(PATIENCE)).await;
                return Err(error);
            }
        }
        step("can't commit a transaction", |client| client.commit_transaction(PATIENCE)).await
    }

    /// Sends messages, and returns once each is durable, with its partition and offset, in order. On an error some may
    /// have been delivered.
    pub async fn send(&self, topic: &str, records: &[Record]) -> Result<Vec<(i32, i64)>, KafkaError> {
        if records.is_empty() {
            return Ok(vec![]);
        }
        let failed = |e: ClientError| self.config.failed(topic, "can't be written to")(self.complaint().beside(&e));
        let (done, finished) = oneshot::channel();
        let batch = Arc::new(Batch {
            places: Mutex::new(vec![None; records.len()]),
            left: AtomicUsize::new(records.len()),
            done: Mutex::new(Some(done)),
        });
        for (i, record) in records.iter().enumerate() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut message: BaseRecord<'_, Vec<u8>, [u8], Box<Place>> =
                BaseRecord::with_opaque_to(topic, Box::new(Place { batch: batch.clone(), i }))
                    .timestamp(record.timestamp)
                    .headers(headers);
            message.key = record.key.as_ref();
            message.payload = record.payload.as_deref();
            message.partition = record.partition;
            while let Err((error, back)) = self.client.send(message) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(failed(error));
                }
                message = back;
                tokio::time::sleep(FULL).await;
            }
        }
        // The client answers for every message, if only by its time-out.
        let _ = finished.await;
        let places = std::mem::take(&mut *batch.places.lock().unwrap_or_else(PoisonError::into_inner));
        let missing = || Err(ClientError::NoMessageReceived);
        let places = places.into_iter().map(|place| place.unwrap_or_else(missing));
        places.collect::<Result<_, _>>().map_err(failed)
    }

    /// Makes a topic unless it is there; with the broker's own number of partitions unless one is given. True if it is new.
    /// One for `history` keeps messages for ever: Kafka goes by their own time, so that what is older than the broker's
    /// retention would be gone as soon as it is written.
    pub async fn create_topic(&self, topic: &str, partitions: Option<u32>, history: bool) -> Result<bool, KafkaError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let client = self.config.client(Role::Producer, &[])?;
        let admin: AdminClient<DefaultClientContext> = client.create().map_err(misconfigured)?;
        let partitions = partitions.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1);
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        if history {
            new = new.set("retention.ms", "-1");
        }
        // Its own complaints reach nobody: the producer's are of the same brokers.
        let refused = |e: ClientError| self.config.failed(topic, "can't be created")(self.complaint().beside(&e));
        let made =
            admin.create_topics([&new], &AdminOptions::new().request_timeout(Some(PATIENCE))).await.map_err(refused)?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, cause))) => Err(refused(ClientError::AdminOp(cause))),
            Some(Ok(_)) => Ok(true),
            None => Err(refused(ClientError::NoMessageReceived)),
        }
    }

    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    fn complaint(&self) -> &Complaint {
        &self.client.context().0
    }
}

/// Partition and offset, or what went wrong.
type Delivered = Result<(i32, i64), ClientError>;

/// Messages that are sent together.
#[derive(Debug)]
struct Batch {
    /// None until the broker, or the client's time-out, has answered.
    places: Mutex<Vec<Option<Delivered>>>,
    left: AtomicUsize,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

#[derive(Debug)]
struct Place {
    batch: Arc<Batch>,
    i: usize,
}

impl Place {
    fn set(&self, place: Delivered) {
        if let Some(slot) = self.batch.places.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.i) {
            *slot = Some(place);
        }
    }
}

impl Drop for Place {
    /// Delivered, refused, or given up: the batch has one message less to wait for.
    fn drop(&mut self) {
        if self.batch.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.batch.done.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Nobody waits any more.
            let _ = done.send(());
        }
    }
}

#[derive(Debug, Default)]
struct Deliveries(Complaint);

impl ClientContext for Deliveries {
    fn error(&self, error: ClientError, reason: &str) {
        self.0.hear(&error, reason);
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.hear_log(facility, line);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Box<Place>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<Place>) {
        place.set(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        });
    }
}
