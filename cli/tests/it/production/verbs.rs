//! `tidemark generate --to kafka`, and `tidemark status` beside a stream in production.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::harness::{Shop, Topic, kafka_tool, random, service, unique};
use crate::crash::events;

/// What it says that it made is in the topics, and what the stream reads of them.
#[tokio::test(flavor = "multi_thread")]
async fn generated_events_are_in_their_topics() {
    // For its project alone; the topics are made by the verb.
    let topic = Topic::new("generated").await;
    generated(&Shop::new(&topic, "generated"));
}

pub fn generated(shop: &Shop) {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let topics = ["transactions", "clicks"].map(|source| (source, unique(source)));
    let mut sources = String::new();
    for (source, topic) in &topics {
        let schema = format!("{source}.v1");
        let contract = std::fs::read(format!("{schemas}/{schema}.avsc")).unwrap();
        shop.project.write(&format!("schemas/{schema}.avsc"), contract);
        sources += &format!(
            "CREATE SOURCE {source} WITH (schema = '{schema}', topic = '{topic}', timestamp = 'event_time', partitions = 3);\n"
        );
    }
    shop.project.write("features/generated.sql", sources);
    let size = ["--days", "2", "--users", "50", "--transactions-per-day", "700", "--clicks-per-day", "900"];
    let made = shop.ok(&[&["generate", "--to", "kafka", "--seed", "3", "--duplicates", "0.05"], &size[..]].concat());
    assert!(made["duplicates"].as_u64().unwrap() > 20, "{made}");
    let drained = shop.drain();
    for (source, topic) in &topics {
        let said = made[source].as_u64().unwrap();
        assert!(said > 1000, "{made}");
        let args = ["--bootstrap-server", &service("KAFKA_BROKERS", "kafka"), "--topic", topic];
        let ends = kafka_tool("org.apache.kafka.tools.GetOffsetShell", &args).unwrap();
        let ends: Vec<u64> = ends.lines().map(|line| line.rsplit(':').next().unwrap().parse().unwrap()).collect();
        assert_eq!((ends.len(), ends.iter().sum::<u64>()), (3, said), "{source}: {ends:?}");
        assert!(ends.iter().all(|end| *end > 0), "{source}: {ends:?}");
        let read = &drained["sources"][source];
        assert_eq!((&read["events"], &read["rejected"]), (&said.into(), &0.into()), "{source}");
    }
}

/// How the stream is, and what its state takes of Redis.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_state_takes_of_redis() {
    let mut topic = Topic::new("status").await;
    let shop = Shop::new(&topic, "status").and_plain();
    let up = shop.engine(0);
    topic.send(&events(&mut random())).await;
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    let status = shop.ok(&["status", "--url", up.url()]);
    assert_eq!(status["ready"], true);
    for source in ["payments", "plain"] {
        let found = status["sources"].as_array().unwrap().iter().find(|found| found["name"] == source).unwrap();
        let number = |key: &str| found[key].as_u64().unwrap() as usize;
        assert_eq!((number("events"), number("rejected"), number("lag")), (topic.events(), topic.poisoned(), 0));
        let labels = format!("source=\"{source}\"");
        assert_eq!(up.metric("tidemark_source_events_rejected_total", &labels) as usize, topic.poisoned());
        assert!(up.metric("tidemark_source_rebalances_total", &labels) > 0.0);
    }
    let views = status["store"]["views"].as_array().unwrap();
    let views: BTreeMap<&str, &Json> = views.iter().map(|view| (view["view"].as_str().unwrap(), view)).collect();
    let expected = ["plain_ever", "plain_hour", "plain_tiles", "shop_tiles", "user_ever", "user_last", "user_spend"];
    assert_eq!(views.keys().copied().collect::<Vec<_>>(), expected);
    for (name, view) in &views {
        let number = |key: &str| view[key].as_f64().unwrap();
        let keys = if name.ends_with("tiles") { 8 } else { topic.counts(true).len() };
        assert_eq!((number("keys"), number("events")), (keys as f64, topic.messages() as f64), "{view}");
        assert!(number("bytes_per_key") > 0.0 && number("bytes_per_event") > 0.0, "{view}");
        // All of them and each by itself are the same bytes, but for what is rounded.
        assert!((number("bytes_per_key") * number("keys") - number("bytes")).abs() <= number("keys"), "{view}");
    }
    // As a person sees it.
    let page = shop.project.ok(&["status", "--url", up.url()]);
    assert!(page.contains("is ready") && page.contains("bytes/event") && page.contains("user_spend"), "{page}");
    assert_eq!(up.stop(), Some(0));
}
