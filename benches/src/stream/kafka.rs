//! A topic's messages as they are, chunk by chunk, and the end of this run's topics.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidemark_engine::source::Message;

use crate::Place;
use crate::project::topic;

/// Messages held at a time.
const CHUNK: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn client(place: &Place) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &place.brokers).set("group.id", &place.id).set("enable.auto.commit", "false");
    client
}

/// Hands over every message of a topic, partition by partition in offset order, some at a time.
pub fn read(
    place: &Place,
    topic: &str,
    partitions: u32,
    mut take: impl FnMut(i32, &[Message]) -> Result<()>,
) -> Result<()> {
    let consumer: BaseConsumer = client(place).create()?;
    for partition in 0..i32::try_from(partitions)? {
        let (low, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
        consumer.assign(&assignment)?;
        let (mut next, mut messages, mut heard) = (low, vec![], Instant::now());
        while next < end {
            match consumer.poll(Duration::from_millis(100)) {
                Some(message) => {
                    let message = message?;
                    let millis = message.timestamp().to_millis().context("a message without a time")?;
                    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    messages.push(Message { offset: message.offset(), ingested_at: millis * 1000, payload });
                    (next, heard) = (message.offset() + 1, Instant::now());
                }
                None if heard.elapsed() > PATIENCE => bail!("topic {topic}: no message for {PATIENCE:?}"),
                None => {}
            }
            if messages.len() == CHUNK || next >= end {
                take(partition, &messages)?;
                messages.clear();
            }
        }
    }
    Ok(())
}

/// Deletes this run's topics and subjects; what can't be deleted stays.
pub async fn forget(place: &Place) {
    let admin: Result<AdminClient<DefaultClientContext>, _> = client(place).create();
    let topics: Vec<String> = ["transactions", "clicks"].map(|source| topic(place, source)).into();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    if let Ok(admin) = admin {
        let _ = admin.delete_topics(&names, &AdminOptions::new()).await;
    }
    let registry = place.registry.trim_end_matches('/').to_owned();
    let _ = tokio::task::spawn_blocking(move || {
        for topic in topics {
            let _ = ureq::delete(format!("{registry}/subjects/{topic}-value")).call();
        }
    })
    .await;
}
