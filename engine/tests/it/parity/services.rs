//! Events through Kafka and Redis: a topic of the world's own, drained in several goes by platforms that come and go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::RngExt;
use tidemark_engine::online::RedisConfig;
use tidemark_engine::plan::Project;
use tidemark_engine::platform::{Folder, KafkaSettings, Platform, Services, event_table};
use tidemark_engine::source::kafka::{KafkaConfig, KafkaProducer, Record};
use tidemark_engine::source::{Encoder, SchemaRegistry};

use super::engine::Streamed;
use super::events::avro;
use super::world::World;

/// Where a service is; a test that lacks it fails, and says so.
fn service(variable: &str, name: &str) -> Result<String, String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    url.ok_or_else(|| {
        format!("{variable} is not set; hint: infra/services start {name}, then eval \"$(infra/services env)\"")
    })
}

pub async fn stream(world: &World, project: &Arc<Project>, folder: &Path) -> Result<Streamed, String> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let mut rng = world.rng(4);
    let source = &project.sources["events"];
    let name = format!("parity-{}-{}-{}", world.seed, std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let (brokers, registry) = (service("KAFKA_BROKERS", "kafka")?, service("SCHEMA_REGISTRY_URL", "registry")?);
    let redis = match rng.random_bool(0.5) {
        true => service("REDIS_URL", "redis")?,
        false => service("REDIS_CLUSTER_URL", "cluster")?,
    };
    let client = KafkaConfig { brokers, ..KafkaConfig::default() };
    let producer = KafkaProducer::new(&client).map_err(|e| e.to_string())?;
    // The project's source says `events`: every world has its own topic by its own options.
    let topic = source.topic().to_owned();
    producer.create_topic(&topic, Some(world.shape.partitions as u32), true).await.map_err(|e| e.to_string())?;
    let contract = source.contract.clone().ok_or("no contract")?;
    let id = SchemaRegistry::new(&registry)
        .and_then(|registry| registry.register(&source.subject(), &contract))
        .map_err(|e| e.to_string())?;
    let encoder = Encoder::new(contract).framed_by(id);
    let services = Services {
        kafka: Some(KafkaSettings { client, registry, group: name.clone() }),
        redis: Some(RedisConfig { url: redis, project: name, keep_idle: true }),
    };
    let folder = Folder::new(folder.join("data"));
    let open = || Platform::open(project.clone(), folder.clone(), services.clone());
    let mut platform = open().await.map_err(|e| e.to_string())?;
    // As an event's ingestion: late enough for every event.
    let timestamp = world.events.iter().map(|event| event.time).max().unwrap_or(0).max(0) / 1000 + 1;
    let mut left = world.live();
    loop {
        let least = left.len().div_ceil(3);
        let (now, later) = left.split_at(rng.random_range(least..=left.len()));
        let records = now.iter().map(|event| Record {
            partition: Some(event.partition),
            payload: Some(encoder.frame(&avro(event))),
            timestamp,
            ..Record::default()
        });
        producer.send(&topic, &records.collect::<Vec<_>>()).await.map_err(|e| e.to_string())?;
        for (_, summary) in platform.drain().await.map_err(|e| format!("the stream fails: {e}"))? {
            if summary.rejected > 0 {
                return Err(format!("{} events were refused", summary.rejected));
            }
        }
        if rng.random_bool(0.5) {
            platform = open().await.map_err(|e| e.to_string())?;
        }
        left = later;
        if left.is_empty() {
            break;
        }
    }
    let archive = event_table(&folder, source).await.map_err(|e| format!("the archive can't be read: {e}"))?.table;
    Ok(Streamed { store: platform.store.clone(), archive })
}
