//! The platform's side of Kafka: clients, schema ids, and a worker's source and dead letters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::PlatformError;
use crate::catalog::Source;
use crate::metrics::Metrics;
use crate::source::kafka::{KafkaConfig, KafkaDeadLetters, KafkaError, KafkaProducer, KafkaSource, Subscription};
use crate::source::{Contract, SchemaRegistry, SourceError};
use crate::sql::Start;

/// Where events are in production.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    pub client: KafkaConfig,
    /// The schema registry's URL.
    pub registry: String,
    /// What the names of consumer groups begin with: `<this>.<source>`.
    pub group: String,
}

#[derive(Debug)]
pub struct Kafka {
    /// Of the sources without options of their own.
    producer: KafkaProducer,
    /// Of each source that has some: they may say where its topic is, and who may write to it.
    producers: Mutex<BTreeMap<String, KafkaProducer>>,
    settings: KafkaSettings,
    registry: Arc<SchemaRegistry>,
    /// The id of each source's contract, once it is registered.
    ids: Mutex<BTreeMap<String, u32>>,
}

impl Kafka {
    /// Touches no service yet.
    pub fn new(settings: KafkaSettings) -> Result<Kafka, PlatformError> {
        let producer = KafkaProducer::new(&settings.client)?;
        let registry = Arc::new(SchemaRegistry::new(&settings.registry)?);
        Ok(Kafka { producer, producers: Mutex::default(), settings, registry, ids: Mutex::default() })
    }

    /// What writes to a source's topics, with the options that its consumer has.
    pub(super) fn producer(&self, source: &Source) -> Result<KafkaProducer, KafkaError> {
        if source.options.kafka.is_empty() {
            return Ok(self.producer.clone());
        }
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = producers.get(&source.name) {
            return Ok(known.clone());
        }
        let producer = KafkaProducer::new(&self.client(source))?;
        producers.insert(source.name.clone(), producer.clone());
        Ok(producer)
    }

    fn client(&self, source: &Source) -> KafkaConfig {
        self.settings.client.clone().with(&source.options.kafka)
    }

    /// The id under which the registry knows a source's contract; registers it, if it is new.
    pub(super) async fn schema_id(&self, source: &Source, contract: Arc<Contract>) -> Result<u32, PlatformError> {
        let known = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&source.name).copied();
        if let Some(id) = known {
            return Ok(id);
        }
        let (registry, subject) = (self.registry.clone(), source.subject());
        let register = move || registry.register(&subject, &contract);
        let id = tokio::task::spawn_blocking(register).await.map_err(|e| PlatformError::Worker(e.to_string()))??;
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(source.name.clone(), id);
        Ok(id)
    }

    /// A source's events, as a member of its consumer group.
    pub(super) fn source(
        &self,
        source: &Source,
        contract: Arc<Contract>,
        max_bytes: usize,
        metrics: Metrics,
    ) -> Result<KafkaSource, SourceError> {
        let subscription = Subscription {
            source: source.name.clone(),
            topic: source.topic().to_owned(),
            group: format!("{}.{}", self.settings.group, source.name),
            start: source.options.start.as_ref().map_or(Start::Earliest, |start| start.value),
            contract,
            time: (source.timestamp.clone(), source.options.max_future),
            max_bytes,
        };
        KafkaSource::open(&self.client(source), subscription, self.registry.clone(), metrics)
    }

    /// Where a source's rejects go. Makes the topic, unless it is there; who may not make topics has one that somebody
    /// else made.
    pub(super) async fn dead_letters(&self, source: &Source) -> Result<KafkaDeadLetters, KafkaError> {
        let (topic, producer) = (source.dead_letter_topic(), self.producer(source)?);
        if let Err(error) = producer.create_topic(&topic, None, false).await {
            tracing::warn!(%topic, %error, "the topic of dead letters is not made");
        }
        Ok(KafkaDeadLetters::new(producer, &source.name, source.topic(), &topic))
    }

    /// Makes a source's topic unless it is there, with as many partitions as the source says, or else the broker's own
    /// number.
    pub async fn create_topic(&self, source: &Source) -> Result<bool, PlatformError> {
        let partitions = source.options.partitions.as_ref().map(|partitions| partitions.value);
        Ok(self.producer(source)?.create_topic(source.topic(), partitions, true).await?)
    }
}
