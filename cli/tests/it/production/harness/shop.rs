//! The shop's project over a topic: engines that run it, and everything that they leave behind, to compare.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use serde_json::Value as Json;
use tidemark_engine::online::{RedisConfig, ViewId};
use tidemark_engine::plan;
use tidemark_engine::platform::{Folder, KafkaSettings, Platform, Services};
use tidemark_engine::source::kafka::{KafkaConfig, TopicLetter, topic_letters};

use super::{Topic, owned, service, unique};
use crate::crash::{self, MINUTE, PLAIN_VIEWS, Row, SPAN, START, USERS};
use crate::support::{Process, Project, Up, shop};

pub struct Shop {
    pub project: Project,
    pub name: String,
    pub redis: String,
    /// Those that read the topic.
    sources: &'static [&'static str],
    topic: String,
    partitions: usize,
    pub client: KafkaConfig,
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
            "CREATE SOURCE payments WITH (schema = 'payments.v1', timestamp = 'at', event_id = 'id', topic = '{}', dead_letter_topic = '{name}-payments'{options});\n",
            topic.name
        );
        let project = Project::new(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>());
        let (redis, sources) = (redis.to_owned(), ["payments"].as_slice());
        let client = KafkaConfig { brokers: topic.brokers.clone(), options: topic.options.clone() };
        Self { project, name, redis, sources, topic: topic.name.clone(), partitions: topic.partitions as usize, client }
    }

    /// With a source `plain` over the same topic, that names no `event_id`: an event that a fault made be folded twice is
    /// recognised by nothing there but its offset.
    pub fn and_plain(self) -> Self {
        let source = format!(
            "CREATE SOURCE plain WITH (schema = 'payments.v1', timestamp = 'at', topic = '{}', dead_letter_topic = '{}');\n",
            self.topic,
            self.dead_letter_topic("plain"),
        );
        self.project.write("features/plain.sql", source + PLAIN_VIEWS);
        Self { sources: &["payments", "plain"], ..self }
    }

    fn dead_letter_topic(&self, source: &str) -> String {
        format!("{}-{source}", self.name)
    }

    pub fn command(&self) -> Command {
        let mut command = self.project.command();
        command.env("KAFKA_BROKERS", &self.client.brokers).env("REDIS_URL", &self.redis);
        let options: Vec<String> = self.client.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        command.env("KAFKA_OPTIONS", options.join(";"));
        command.env("SCHEMA_REGISTRY_URL", service("SCHEMA_REGISTRY_URL", "registry"));
        command.args(["--project", &self.name, "--json"]);
        command
    }

    /// An engine that is missed two seconds after it died.
    pub fn spawn(&self, engine: usize, args: &[&str], spawned: impl FnOnce(Process)) -> Result<Up, String> {
        let mut stream = self.command();
        stream.args(["stream", "--listen", "127.0.0.1:0"]);
        stream.args(["--kafka-option", "session.timeout.ms=2000", "--kafka-option", "heartbeat.interval.ms=300"]);
        stream.args(args);
        Up::of(stream, self.project.path(&format!("engine-{engine}.log")), spawned)
    }

    pub fn engine(&self, engine: usize) -> Up {
        self.engine_with(engine, &["--commit-every", "0.1"])
    }

    pub fn engine_with(&self, engine: usize, args: &[&str]) -> Up {
        self.spawn(engine, args, |_| ()).unwrap_or_else(|log| panic!("the engine did not start: {log}"))
    }

    /// Whether an engine reads every partition, for every source.
    pub fn owned_by(&self, up: &Up) -> bool {
        owned(up) == self.partitions * self.sources.len()
    }

    /// Whether an engine that reads everything has committed all that was sent.
    pub fn absorbed(&self, topic: &Topic, up: &Up) -> bool {
        let committed =
            |source: &&str| up.metric("tidemark_source_committed_offset", &format!("source=\"{source}\"")) as usize;
        self.sources.iter().all(|source| committed(source) == topic.messages())
    }

    /// How many messages are committed, as Redis has it: by the source that is furthest behind.
    pub async fn committed(&self) -> usize {
        let store = self.platform().await.store;
        let mut least = usize::MAX;
        for source in self.sources {
            let id = ViewId { name: format!("@{source}"), fingerprint: "committed".to_owned() };
            let committed = store.progress(&id).await.unwrap().values().sum::<i64>();
            least = least.min(usize::try_from(committed).unwrap());
        }
        least
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
        let registry = service("SCHEMA_REGISTRY_URL", "registry");
        let kafka = KafkaSettings { client: self.client.clone(), registry, group: self.name.clone() };
        let project = plan::Project::open(&self.project.path("."), &self.project.path("features")).await.unwrap();
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

    /// The column `payments` of a view, for each user who has any.
    pub async fn counts(&self, view: &str) -> BTreeMap<i64, i64> {
        let platform = self.platform().await;
        let users: ArrayRef = Arc::new(Int64Array::from_iter_values(0..USERS));
        let instants = vec![START + SPAN; users.len()];
        let view = &platform.project.views[view];
        let answer = platform.reader().view(view, std::slice::from_ref(&users), &instants).await.unwrap();
        let payments = answer.values.column_by_name("payments").unwrap().as_primitive::<Int64Type>();
        (0..USERS).zip(payments.values().iter().copied()).filter(|(_, payments)| *payments > 0).collect()
    }

    pub fn archive(&self, source: &str) -> (Vec<(i32, i64)>, BTreeMap<Row, usize>) {
        crash::archive(&self.project, source)
    }

    pub fn letters(&self) -> Vec<TopicLetter> {
        self.letters_of("payments")
    }

    fn letters_of(&self, source: &str) -> Vec<TopicLetter> {
        self.letters_in(&self.dead_letter_topic(source))
    }

    pub fn letters_in(&self, topic: &str) -> Vec<TopicLetter> {
        topic_letters(&self.client, topic).unwrap()
    }

    /// What the engines did must be what one engine does that nothing disturbs; and what was sent, by count.
    pub async fn equals_a_calm_run(&self, topic: &Topic) {
        self.drain();
        let calm = Shop::new(topic, "calm");
        let calm = if self.sources.contains(&"plain") { calm.and_plain() } else { calm };
        calm.drain();
        let (there, here) = (calm.online().await, self.online().await);
        assert!(there.values().filter(|value| value.starts_with("Present")).count() > 100, "compared over nothing");
        assert_eq!(there.len(), here.len());
        let differ: Vec<_> = there.iter().filter(|(what, expected)| here.get(*what) != Some(expected)).collect();
        for (what, expected) in &differ {
            println!("{what}: {:?}, expected {expected:?}", here.get(*what));
        }
        assert!(differ.is_empty(), "{} values differ between {} and {}", differ.len(), self.name, calm.name);
        for source in self.sources {
            let twice = *source == "plain";
            let view = if twice { "plain_ever" } else { "user_ever" };
            assert_eq!(self.counts(view).await, topic.counts(twice), "{view}");
            let (places, rows) = self.archive(source);
            let mut once = places.clone();
            once.dedup();
            assert_eq!(places.len(), once.len(), "{source}: a row is in the archive twice");
            assert_eq!(places.len(), topic.events(), "{source}: rows of the archive");
            assert_eq!((places, rows), calm.archive(source), "{source}");
            let place = |letter: &TopicLetter| (letter.partition, letter.offset, letter.reason.clone());
            let letters: Vec<_> = self.letters_of(source).iter().map(place).collect();
            assert_eq!(letters, calm.letters_of(source).iter().map(place).collect::<Vec<_>>(), "{source}");
            assert_eq!(letters.len(), topic.poisoned(), "{source}: dead letters of topic {}", self.topic);
        }
        let verified = self.ok(&["archive", "verify"]);
        for found in verified.as_array().unwrap_or(&vec![verified.clone()]) {
            assert_eq!(found["faults"], Json::Array(vec![]), "{found}");
            let holes =
                found["partitions"].as_array().unwrap().iter().map(|partition| partition["holes"].as_u64().unwrap());
            assert_eq!(
                holes.sum::<u64>(),
                0,
                "what is missing in between was refused, and its letter is there: {found}"
            );
        }
        assert_ne!(topic.counts(true), topic.counts(false), "nothing was sent twice");
    }
}
