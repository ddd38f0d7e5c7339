//! A topic of its own for each test, projects over it, engines, and what to compare.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;
use tidemark_engine::online::RedisConfig;
use tidemark_engine::plan;
use tidemark_engine::platform::{Folder, KafkaSettings, Platform, Services};
use tidemark_engine::source::kafka::{KafkaConfig, KafkaProducer, Record, TopicLetter, topic_letters};
use tidemark_engine::source::{Contract, Encoder, SchemaRegistry};

use crate::crash::{self, MINUTE, Row, SPAN, START, USERS};
use crate::support::{CONTRACT, Process, Project, Up, shop};

pub const PARTITIONS: u32 = 3;

/// Where a service is; a test that lacks it fails, and says so.
pub fn service(variable: &str, name: &str) -> String {
    match std::env::var(variable) {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("{variable} is not set; hint: infra/services start {name}, then eval \"$(infra/services env)\""),
    }
}

/// A name that no other test and no other run has.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{name}-{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A topic of payments, and who writes to it.
pub struct Topic {
    pub name: String,
    pub brokers: String,
    pub producer: KafkaProducer,
    encoder: Encoder,
    sent: usize,
    messages: usize,
}

impl Topic {
    pub async fn new(test: &str) -> Self {
        Self::at(&service("KAFKA_BROKERS", "kafka"), test, PARTITIONS).await
    }

    pub async fn at(brokers: &str, test: &str, partitions: u32) -> Self {
        let (name, brokers) = (unique(test), brokers.to_owned());
        let registry = SchemaRegistry::new(&service("SCHEMA_REGISTRY_URL", "registry")).unwrap();
        let contract = Arc::new(Contract::parse("payments.v1", CONTRACT).unwrap());
        let id = registry.register(&format!("{name}-value"), &contract).unwrap();
        let config = KafkaConfig { brokers: brokers.clone(), options: BTreeMap::new() };
        let producer = KafkaProducer::new(&config).unwrap();
        assert!(producer.create_topic(&name, Some(partitions), true).await.unwrap());
        Self { name, brokers, producer, encoder: Encoder::new(contract).framed_by(id), sent: 0, messages: 0 }
    }

    pub fn producer_of(brokers: &str) -> KafkaProducer {
        KafkaProducer::new(&KafkaConfig { brokers: brokers.to_owned(), options: BTreeMap::new() }).unwrap()
    }

    /// Deletes the messages of a partition below an offset, as retention does.
    pub async fn forget(&self, partition: i32, below: i64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = serde_json::json!({"topic": self.name, "partition": partition, "offset": below});
        std::fs::write(file.path(), serde_json::json!({"partitions": [place], "version": 1}).to_string()).unwrap();
        let mut command = Command::new(script());
        command.args(["tool", "org.apache.kafka.tools.DeleteRecordsCommand", "--bootstrap-server", &self.brokers]);
        let output = command.arg("--offset-json-file").arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
            let key = event[key].to_string().into_bytes();
            let timestamp = (START + SPAN) / 1000;
            let record = |payload| Record { key: key.clone(), partition: None, payload, timestamp, headers: vec![] };
            if self.sent % 100 == 7 {
                records.push(record(poison(self.sent / 100, &payload)));
            }
            records.push(record(Some(payload)));
            self.sent += 1;
        }
        self.producer.send(&self.name, &records).await.unwrap();
        self.messages += records.len();
    }

    /// Whether an engine that reads the whole topic has committed all that was sent.
    pub fn absorbed_by(&self, up: &Up) -> bool {
        up.metric("tidemark_source_committed_offset", "") as usize == self.messages
    }

    /// Messages as they are, each to the partition that is named.
    pub async fn send_raw(&mut self, messages: Vec<(i32, Option<Bytes>)>) {
        let timestamp = (START + SPAN) / 1000;
        let record =
            |(partition, payload)| Record { partition: Some(partition), payload, timestamp, ..Record::default() };
        let records: Vec<Record> = messages.into_iter().map(record).collect();
        self.producer.send(&self.name, &records).await.unwrap();
        self.messages += records.len();
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

/// The shop's project over a topic.
pub struct Shop {
    pub project: Project,
    pub name: String,
    pub redis: String,
    topic: String,
    brokers: String,
}

impl Shop {
    pub fn new(topic: &Topic, role: &str) -> Self {
        Self::with_redis(topic, role, &service("REDIS_URL", "redis"))
    }

    pub fn with_redis(topic: &Topic, role: &str, redis: &str) -> Self {
        Self::with_options(topic, role, redis, "")
    }

    /// With more options of the source.
    pub fn with_options(topic: &Topic, role: &str, redis: &str, options: &str) -> Self {
        let name = unique(role);
        let mut files = shop(1);
        files[1].1 = format!(
            "CREATE SOURCE payments WITH (schema = 'payments.v1', timestamp = 'at', event_id = 'id', topic = '{}', dead_letter_topic = '{name}'{options});\n",
            topic.name
        );
        let project = Project::new(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>());
        let (topic, brokers) = (topic.name.clone(), topic.brokers.clone());
        Self { project, name, redis: redis.to_owned(), topic, brokers }
    }

    pub fn command(&self) -> Command {
        let mut command = self.project.command();
        command.env("KAFKA_BROKERS", &self.brokers).env("REDIS_URL", &self.redis);
        command.env("SCHEMA_REGISTRY_URL", service("SCHEMA_REGISTRY_URL", "registry"));
        command.args(["--project", &self.name, "--json"]);
        command
    }

    /// An engine that is missed two seconds after it died.
    pub fn spawn(&self, engine: usize, spawned: impl FnOnce(Process)) -> Result<Up, String> {
        let mut stream = self.command();
        stream.args(["stream", "--listen", "127.0.0.1:0", "--commit-every", "0.1"]);
        stream.args(["--kafka-option", "session.timeout.ms=2000", "--kafka-option", "heartbeat.interval.ms=300"]);
        Up::of(stream, self.project.path(&format!("engine-{engine}.log")), spawned)
    }

    pub fn engine(&self, engine: usize) -> Up {
        self.spawn(engine, |_| ()).unwrap_or_else(|log| panic!("the engine did not start: {log}"))
    }

    /// Absorbs all that the topic holds; what it said.
    pub fn drain(&self) -> Json {
        self.ok(&["stream", "--until-end"])
    }

    /// Runs a verb that is to succeed, and reads what it printed.
    pub fn ok(&self, args: &[&str]) -> Json {
        let output = self.command().args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut values: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if values.len() == 1 { values.remove(0) } else { Json::Array(values) }
    }

    pub fn redis_config(&self) -> RedisConfig {
        RedisConfig { url: self.redis.clone(), project: self.name.clone(), keep_idle: true }
    }

    pub async fn platform(&self) -> Platform {
        let client = KafkaConfig { brokers: self.brokers.clone(), options: BTreeMap::new() };
        let registry = service("SCHEMA_REGISTRY_URL", "registry");
        let kafka = KafkaSettings { client, registry, group: self.name.clone() };
        let project = plan::Project::load(&self.project.path("."), &self.project.path("features")).await.unwrap();
        let services = Services { kafka: Some(kafka), redis: Some(self.redis_config()) };
        Platform::open(Arc::new(project), Folder::new(self.project.path("data")), services).await.unwrap()
    }

    /// Everything that can be read: each view's values for each key at several instants.
    pub async fn online(&self) -> BTreeMap<String, String> {
        let platform = self.platform().await;
        let reader = platform.reader();
        let users: ArrayRef = Arc::new(Int64Array::from_iter_values(0..USERS));
        let shops: ArrayRef = Arc::new(StringArray::from_iter_values((0..8).map(|shop| format!("shop {shop}"))));
        let mut values = BTreeMap::new();
        for view in platform.project.views.values() {
            let keys = if view.keys.iter().any(|key| key.name() == "shop") { &shops } else { &users };
            for as_of in [START + SPAN / 2, START + SPAN - 7 * MINUTE, START + SPAN, START + SPAN + 50 * MINUTE] {
                let answer = reader.view(view, std::slice::from_ref(keys), &vec![as_of; keys.len()]).await.unwrap();
                for row in 0..keys.len() {
                    let one = answer.values.slice(row, 1);
                    let status = answer.views[0].status[row];
                    values.insert(format!("{} {as_of} {row}", view.name), format!("{status:?} {:?}", one.columns()));
                }
            }
        }
        values
    }

    pub fn archive(&self) -> (Vec<(i32, i64)>, BTreeMap<Row, usize>) {
        crash::archive(&self.project, "payments")
    }

    pub fn letters(&self) -> Vec<TopicLetter> {
        let config = KafkaConfig { brokers: self.brokers.clone(), options: BTreeMap::new() };
        topic_letters(&config, &self.name).unwrap()
    }

    /// What the engines did must be what one engine does that nothing disturbs.
    pub async fn equals_a_calm_run(&self, topic: &Topic) {
        self.drain();
        let calm = Shop::with_redis(topic, "calm", &service("REDIS_URL", "redis"));
        calm.drain();
        let (there, here) = (calm.online().await, self.online().await);
        assert!(there.values().filter(|value| value.starts_with("Present")).count() > 100, "compared over nothing");
        assert_eq!(there.len(), here.len());
        let differ: Vec<_> = there.iter().filter(|(what, expected)| here.get(*what) != Some(expected)).collect();
        for (what, expected) in &differ {
            println!("{what}: {:?}, expected {expected:?}", here.get(*what));
        }
        assert!(differ.is_empty(), "{} values differ between {} and {}", differ.len(), self.name, calm.name);
        let (places, rows) = self.archive();
        let mut once = places.clone();
        once.dedup();
        assert_eq!(places.len(), once.len(), "a row is in the archive twice");
        assert_eq!((places, rows), calm.archive());
        let place = |letter: &TopicLetter| (letter.partition, letter.offset, letter.reason.clone());
        let letters: Vec<_> = self.letters().iter().map(place).collect();
        assert_eq!(letters, calm.letters().iter().map(place).collect::<Vec<_>>());
        assert_eq!(letters.len(), topic.poisoned(), "dead letters of topic {}", self.topic);
    }
}

/// The seed of a test's random choices; another one if `TIDEMARK_FAULT_SEED` names it.
pub fn random() -> ChaCha8Rng {
    let seed = std::env::var("TIDEMARK_FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    println!("reproduce with TIDEMARK_FAULT_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// Cuts events into batches of random lengths.
pub fn batches<'e>(random: &mut ChaCha8Rng, mut events: &'e [Json], most: usize) -> Vec<&'e [Json]> {
    let mut batches = vec![];
    while !events.is_empty() {
        let (batch, rest) = events.split_at(random.random_range(1..=most).min(events.len()));
        batches.push(batch);
        events = rest;
    }
    batches
}

/// Whether the engine has absorbed everything of the partitions that it has; and it has some.
pub fn caught_up(up: &Up) -> bool {
    let metrics = up.metrics();
    let lag: Vec<f64> = metrics
        .lines()
        .filter(|line| line.starts_with("tidemark_source_lag_events{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    !lag.is_empty() && lag.iter().all(|lag| *lag == 0.0)
}

/// Partitions that an engine reads now.
pub fn owned(up: &Up) -> usize {
    up.metrics().lines().filter(|line| line.starts_with("tidemark_source_lag_events{")).count()
}

pub fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/services"))
}
