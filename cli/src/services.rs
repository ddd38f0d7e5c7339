//! Where Kafka, the schema registry and Redis are: flags over environment over `tidemark.toml`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;
use tidemark_engine::online::RedisConfig;
use tidemark_engine::platform::{KafkaSettings, Services};
use tidemark_engine::source::kafka::KafkaConfig;

use crate::settings::Settings;

#[derive(Debug, Default, clap::Args)]
pub struct Connections {
    /// Brokers of Kafka, host:port with commas between
    #[arg(long, value_name = "BROKERS", env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    /// Options of the Kafka client, key=value, such as security.protocol=SASL_SSL; over those of [env: KAFKA_OPTIONS], which has
    /// semicolons between them, and is the place for passwords
    #[arg(long = "kafka-option", value_name = "KEY=VALUE", value_delimiter = ';')]
    kafka_options: Vec<String>,
    /// URL of the schema registry (Confluent's API)
    #[arg(long, value_name = "URL", env = "SCHEMA_REGISTRY_URL", hide_env_values = true)]
    schema_registry_url: Option<String>,
    #[command(flatten)]
    redis: Redis,
}

#[derive(Debug, Default, clap::Args)]
pub struct Redis {
    /// URL of Redis: redis://host:port, rediss:// for TLS; a cluster's nodes with commas between
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Keep keys in Redis that have had no event for longer than a view looks back
    #[arg(long, env = "REDIS_KEEP_IDLE")]
    redis_keep_idle: bool,
}

impl Redis {
    /// Redis, if it is known.
    pub fn config(&self, settings: &Settings) -> Option<RedisConfig> {
        let url = self.redis_url.clone().or_else(|| settings.services.redis.url.clone());
        let url = url.filter(|url| !url.is_empty())?;
        Some(RedisConfig { url, project: settings.name.clone(), keep_idle: self.redis_keep_idle })
    }
}

/// `[kafka]`, `[schema_registry]` and `[redis]` of `tidemark.toml`.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// `brokers`, and options of the client.
    pub kafka: BTreeMap<String, String>,
    pub schema_registry: Url,
    pub redis: Url,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Url {
    pub url: Option<String>,
}

impl Connections {
    /// The services of production, each of which must be known.
    pub fn production(&self, settings: &Settings) -> Result<Services> {
        let Some(redis) = self.redis.config(settings) else {
            bail!("Redis is not known; expected --redis-url, REDIS_URL, or [redis] url in tidemark.toml");
        };
        Ok(Services { kafka: Some(self.kafka(settings)?), redis: Some(redis) })
    }

    /// Whether Kafka is known.
    pub fn has_kafka(&self, settings: &Settings) -> bool {
        self.brokers(settings).is_some()
    }

    /// Kafka and the registry, both of which must be known.
    pub fn kafka(&self, settings: &Settings) -> Result<KafkaSettings> {
        let client = self.client(settings)?;
        let registry = self.schema_registry_url.clone().or_else(|| settings.services.schema_registry.url.clone());
        let Some(registry) = registry.filter(|url| !url.is_empty()) else {
            bail!(
                "the schema registry is not known; expected --schema-registry-url, SCHEMA_REGISTRY_URL, or [schema_registry] url in tidemark.toml"
            );
        };
        Ok(KafkaSettings { client, registry, group: format!("tidemark.{}", settings.name) })
    }

    pub fn client(&self, settings: &Settings) -> Result<KafkaConfig> {
        let Some(brokers) = self.brokers(settings) else {
            bail!("Kafka is not known; expected --kafka-brokers, KAFKA_BROKERS, or [kafka] brokers in tidemark.toml");
        };
        let mut options = settings.services.kafka.clone();
        options.remove("brokers");
        let environment = std::env::var("KAFKA_OPTIONS").unwrap_or_default();
        let stated = environment.split(';').chain(self.kafka_options.iter().map(String::as_str));
        for option in stated.filter(|option| !option.trim().is_empty()) {
            // Not shown: it may be a part of a password.
            let Some((key, value)) = option.split_once('=') else {
                bail!(
                    "an option of the Kafka client has no `=`; expected key=value, such as security.protocol=SASL_SSL"
                );
            };
            options.insert(key.trim().to_owned(), value.to_owned());
        }
        Ok(KafkaConfig { brokers, options })
    }

    fn brokers(&self, settings: &Settings) -> Option<String> {
        let brokers = self.kafka_brokers.clone().or_else(|| settings.services.kafka.get("brokers").cloned());
        brokers.filter(|brokers| !brokers.is_empty())
    }
}
