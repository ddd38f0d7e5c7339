//! Against a real broker: `KAFKA_BROKERS` says where, `infra/services start kafka` starts one.

use super::super::{KafkaProducer, Record};
use super::*;
use crate::source::SchemaRegistry;

const MESSAGES: i64 = 60;

/// A source over a topic of its own. What is sent is no Avro, so that every message is a reject, and no registry is asked.
async fn source(name: &str) -> KafkaSource {
    let Some(brokers) = std::env::var("KAFKA_BROKERS").ok().filter(|brokers| !brokers.is_empty()) else {
        panic!("KAFKA_BROKERS is not set; hint: infra/services start kafka, eval \"$(infra/services env)\"");
    };
    let config = KafkaConfig { brokers, ..KafkaConfig::default() };
    let now = chrono::Utc::now();
    let topic = format!("test-{name}-{}-{}", std::process::id(), now.timestamp_micros());
    let producer = KafkaProducer::new(&config).unwrap();
    producer.create_topic(&topic, Some(1), true).await.unwrap();
    let record = |i| Record {
        payload: Some(format!("no event, {i}").into()),
        timestamp: now.timestamp_millis(),
        ..Record::default()
    };
    producer.send(&topic, &(0..MESSAGES).map(record).collect::<Vec<_>>()).await.unwrap();
    let contract = r#"{"type":"record","name":"T","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;
    let subscription = Subscription {
        source: "s".into(),
        group: topic.clone(),
        topic,
        start: Start::Earliest,
        contract: Arc::new(Contract::parse("t.v1", contract).unwrap()),
        time: ("at".into(), 0),
        max_bytes: 1 << 20,
    };
    let registry = Arc::new(SchemaRegistry::new("http://127.0.0.1:9").unwrap());
    KafkaSource::open(&config, subscription, registry, Metrics::new().unwrap()).unwrap()
}

/// The next messages, once they are there: their offsets, and where the read after them goes on.
async fn next(source: &mut KafkaSource, from: i64, most: usize) -> (Vec<i64>, i64) {
    loop {
        source.partitions().await.unwrap();
        match source.read(0, from, most).await.unwrap() {
            Some(batch) if batch.next_offset > from => {
                assert_eq!(batch.first_offset, from);
                return (batch.rejects.iter().map(|reject| reject.offset).collect(), batch.next_offset);
            }
            _ => source.wait().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_ahead_is_read_once_and_where_it_was_asked_for() {
    let mut source = source("ahead").await;
    let (mut found, mut from, mut ahead) = (vec![], 0, 0);
    while from < MESSAGES {
        let (offsets, after) = next(&mut source, from, 10).await;
        found.extend(offsets);
        from = after;
        source.read_ahead(0, from, 10);
        if source.ahead.is_some() {
            ahead += 1;
            assert!(!source.exhausted().await.unwrap(), "what is read ahead is still to come");
        }
    }
    assert_eq!(found, (0..MESSAGES).collect::<Vec<_>>());
    assert!(ahead > 0, "nothing was read ahead");

    // Whoever begins again elsewhere gets what is there.
    next(&mut source, 0, 10).await;
    while source.ahead.is_none() {
        let (_, from) = next(&mut source, 0, 10).await;
        source.read_ahead(0, from, 10);
    }
    let (offsets, after) = next(&mut source, 3, 10).await;
    assert_eq!(offsets, (3..after).collect::<Vec<_>>());
    let (offsets, after) = next(&mut source, after, 10).await;
    assert_eq!(offsets, (after - offsets.len() as i64..after).collect::<Vec<_>>());
}
