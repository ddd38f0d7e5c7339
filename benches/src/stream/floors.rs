//! What no engine over these events and this store can beat: decoding them, and writing as many bytes without a thought.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use serde::Serialize;
use tidemark_engine::source::{Decoder, SchemaRegistry};

use crate::answers::Transaction;
use crate::drain::Drained;
use crate::project::{PARTITIONS, Scratch};
use crate::{Place, kafka};
use tidemark_benches::redis_server::RedisServer;

/// As many as the engine decodes at a time.
const BATCH: usize = 8192;
/// As many as the engine puts into a pipeline.
pub const PIPELINE: usize = 1024;

#[derive(Debug, Default)]
pub struct Decode {
    pub seconds: f64,
    pub decoded: u64,
    pub transactions: Vec<Transaction>,
}

/// Decodes all messages on one thread; reading them from Kafka is not in its time. Keeps what the peers and the checks
/// need.
pub async fn decode(place: &Place, scratch: &Scratch) -> Result<Decode> {
    let project = scratch.load().await?;
    let source = project.sources.get("transactions").context("no source of transactions")?.clone();
    let contract = source.contract.clone().context("transactions have no contract")?;
    let (place, topic) = (place.clone(), scratch.topic.clone());
    let work = move || -> Result<Decode> {
        let registry = Arc::new(SchemaRegistry::new(&place.registry)?);
        let time = Some((source.timestamp.as_str(), source.options.max_future));
        let mut decoder = Decoder::new(contract, registry, time).map_err(|e| anyhow!(e))?;
        let mut all = Decode::default();
        kafka::read(&place, &topic, PARTITIONS, |partition, messages| {
            for batch in messages.chunks(BATCH) {
                let started = Instant::now();
                let decoded = decoder.decode(partition, batch).map_err(|e| anyhow!(e))?;
                all.seconds += started.elapsed().as_secs_f64();
                ensure!(decoded.rejects.is_empty(), "{} messages can't be decoded", decoded.rejects.len());
                all.decoded += decoded.events.num_rows() as u64;
                collect(&decoded.events, &mut all.transactions)?;
            }
            Ok(())
        })?;
        Ok(all)
    };
    tokio::task::spawn_blocking(work).await?
}

fn collect(events: &arrow::array::RecordBatch, into: &mut Vec<Transaction>) -> Result<()> {
    let column = |name: &str| events.column_by_name(name).with_context(|| format!("no column {name}"));
    let users = column("user_id")?.as_primitive::<Int64Type>();
    let amounts = column("amount")?.as_primitive::<Float64Type>();
    let times = column("event_time")?.as_primitive::<TimestampMicrosecondType>();
    let status = cast(column("status")?, &DataType::Utf8)?;
    let status = status.as_string::<i32>();
    into.extend((0..events.num_rows()).map(|row| Transaction {
        user: users.value(row),
        amount: amounts.value(row),
        at: times.value(row),
        approved: status.is_valid(row) && status.value(row) == "approved",
    }));
    Ok(())
}

/// As many pipelined writes as the engine did, of the same size, to as many keys.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RawWrites {
    pub seconds: f64,
    pub writes: u64,
    pub value_bytes: usize,
    pub net_input_bytes: u64,
    pub events_per_second: f64,
}

pub fn raw_writes(redis: &RedisServer, ours: &Drained) -> Result<RawWrites> {
    let writes = ours.redis.writes();
    let keys = ours.redis.keys.max(1);
    let name = |write: u64| format!("bench-raw:user_spend:0123456789abcdef:{{{}}}", write % keys);
    // What the engine's commands took of the wire is the values with a frame around them; reads were few bytes each.
    let frame = command(&name(keys / 2), &[]).get_packed_command().len() + 6;
    let reads = ours.redis.calls("hmget") * (frame as u64);
    let bytes = ours.redis.net_input_bytes.saturating_sub(reads) as f64 / writes.max(1) as f64;
    let value = vec![b'x'; (bytes as usize).saturating_sub(frame).max(1)];
    redis.reset()?;
    let mut connection = redis.connect()?;
    let started = Instant::now();
    let mut next = 0;
    while next < writes {
        let mut pipeline = redis::pipe();
        for write in next..(next + PIPELINE as u64).min(writes) {
            pipeline.add_command(command(&name(write), &value)).ignore();
        }
        pipeline.query::<()>(&mut connection)?;
        next += PIPELINE as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    let net_input_bytes = redis.facts()?.net_input_bytes;
    let events_per_second = ours.events as f64 / seconds;
    Ok(RawWrites { seconds, writes, value_bytes: value.len(), net_input_bytes, events_per_second })
}

fn command(key: &str, value: &[u8]) -> redis::Cmd {
    let mut command = redis::cmd("HSET");
    command.arg(key).arg("0").arg(value);
    command
}
