//! From an event to its readable value, under live traffic at a steady rate.
//!
//! A probe is an event of a user whom nobody has seen. Its clock starts just before the producer gets it, and stops when
//! a read through the engine's `Reader` counts it: encoding, Kafka, decoding, folding, Redis and the read are all in it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, Int64Array};
use serde::Serialize;
use tidemark_engine::online::{RedisConfig, RedisStore};
use tidemark_engine::plan::FeatureView;
use tidemark_engine::platform::{Datum, Intake, KafkaSettings};
use tidemark_engine::request::{ReadStatus, Reader};
use tidemark_engine::source::kafka::KafkaConfig;
use tidemark_generators::{Encoder, Record, TRANSACTIONS, Transaction};
use tokio::task::JoinSet;

use crate::Place;
use crate::answers::number;
use crate::project::{Scratch, TRANSACTIONS_PER_DAY, world};
use tidemark_benches::process::Running;
use tidemark_benches::redis_server::RedisServer;

/// Probes a second.
const PROBES: u64 = 20;
/// Between two sends, and between two looks.
const SEND: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(2);
/// After its start the engine has nothing in memory and reads every key that it meets: what is sent in the first seconds is
/// counted by itself.
const WARM_UP: Duration = Duration::from_secs(20);
/// How long the last probes may take.
const REST: Duration = Duration::from_secs(15);
/// Ids that the generator doesn't reach.
const PROBE_IDS: i64 = 1_000_000_000;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    pub sent: u64,
    pub sent_per_second: f64,
    pub probes: usize,
    /// Never seen within the time.
    pub lost: usize,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    /// Of the first seconds.
    pub warm_up_p99_ms: f64,
    pub max_ms: f64,
    /// One read of a probe, which is a part of its time.
    pub read_p50_ms: f64,
    /// The slowest probe of each second: what comes every few seconds shows.
    pub slowest_ms: Vec<f64>,
    /// How often the engine committed, how long that took on the mean, and how long a batch did.
    pub commits: u64,
    pub commit_ms: f64,
    pub batch_ms: f64,
    /// Of the engine, at the end.
    pub rss: u64,
}

pub async fn run(
    place: &Place,
    scratch: &Scratch,
    name: &str,
    redis: &RedisServer,
    (rate, seconds): (u64, u64),
) -> Result<Latency> {
    let project = scratch.load().await?;
    let view = project.views.get("user_spend").context("no view user_spend")?.clone();
    let config = RedisConfig { url: redis.url(), project: name.to_owned(), ..RedisConfig::default() };
    let reader = Reader::new(Arc::new(RedisStore::open(&config).await?));
    let client = KafkaConfig { brokers: place.brokers.clone(), options: BTreeMap::new() };
    let settings = KafkaSettings { client, registry: place.registry.clone(), group: place.id.clone() };
    let intake = Arc::new(Intake::kafka(project, settings)?);
    let made = transactions((rate * seconds) as usize)?;

    let mut stream = scratch.command(place, name, &redis.url());
    stream.args(["stream", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    stream.stderr(std::fs::File::create(scratch.root.join("live.log"))?);
    let mut stream = Running::start(&mut stream)?;
    let out = stream.child.stdout.take().context("the stream's output")?;
    let line = BufReader::new(out).lines().next().context("the stream said nothing")??;
    let said: serde_json::Value = serde_json::from_str(&line)?;
    let url = said["url"].as_str().context("the stream said no url")?.to_owned();
    ready(url.clone()).await?;
    let started = Instant::now();

    let waiting = Waiting::default();
    let looking = tokio::spawn(look(reader, view, waiting.clone()));
    let (sent, took) = send(&intake, made, rate, &waiting).await?;
    waiting.lock().over = Some(Instant::now());
    let seen = looking.await??;
    let metrics = tokio::task::spawn_blocking(move || metrics(&url)).await??;
    let lost = waiting.lock().probes.len();
    let mut reads = std::mem::take(&mut waiting.lock().reads);
    let rss = tidemark_benches::process::rss(stream.child.id());
    drop(stream);
    ensure!(!seen.is_empty(), "no probe was ever seen");
    let mut slowest_ms = vec![0.0_f64; seconds as usize + 1];
    for (at, took) in &seen {
        if let Some(slowest) = slowest_ms.get_mut(at.duration_since(started).as_secs() as usize) {
            *slowest = slowest.max(*took);
        }
    }
    let (warming, steady): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .partition(|(at, _)| at.duration_since(started) < WARM_UP.min(Duration::from_secs(seconds) / 3));
    let sorted = |probes: Vec<(Instant, f64)>| {
        let mut took: Vec<f64> = probes.into_iter().map(|(_, took)| took).collect();
        took.sort_by(f64::total_cmp);
        took
    };
    let (warming, seen) = (sorted(warming), sorted(steady));
    reads.sort_by(f64::total_cmp);
    Ok(Latency {
        sent,
        sent_per_second: sent as f64 / took.as_secs_f64(),
        probes: seen.len(),
        lost,
        p50_ms: quantile(&seen, 0.5),
        p90_ms: quantile(&seen, 0.9),
        p99_ms: quantile(&seen, 0.99),
        warm_up_p99_ms: quantile(&warming, 0.99),
        max_ms: quantile(&seen, 1.0),
        read_p50_ms: quantile(&reads, 0.5),
        slowest_ms,
        commits: metrics("tidemark_stream_commit_seconds_count") as u64,
        commit_ms: mean_ms(&metrics, "tidemark_stream_commit_seconds"),
        batch_ms: mean_ms(&metrics, "tidemark_stream_batch_seconds"),
        rss,
    })
}

/// Probes that were sent and not seen yet.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By user.
    probes: BTreeMap<i64, Instant>,
    /// When nothing more was sent.
    over: Option<Instant>,
    reads: Vec<f64>,
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the world's customers do, made before it is sent.
fn transactions(n: usize) -> Result<Vec<Transaction>> {
    let world = world(TRANSACTIONS_PER_DAY)?;
    let events = world.events(now(), now() + 30 * 86_400_000_000);
    let made = events.filter_map(|event| match event.record {
        Record::Transaction(transaction) => Some(transaction),
        Record::Click(_) => None,
    });
    let mut made: Vec<Transaction> = made.take(n).collect();
    // A world of a month may be smaller than the traffic.
    let month = made.len().max(1);
    while made.len() < n {
        made.push(made[made.len() % month].clone());
    }
    Ok(made)
}

/// Sends at the rate, never waiting for an answer before the next ones go.
async fn send(intake: &Arc<Intake>, made: Vec<Transaction>, rate: u64, waiting: &Waiting) -> Result<(u64, Duration)> {
    let encoder = Encoder::new()?;
    let every = (rate / PROBES).max(1);
    let started = Instant::now();
    let mut answers = JoinSet::new();
    let mut ticks = tokio::time::interval(SEND);
    let all = made.len() as u64;
    let mut made = made.into_iter();
    let mut sent = 0;
    while sent < all {
        ticks.tick().await;
        let due = ((started.elapsed().as_secs_f64() * rate as f64) as u64).min(all);
        let (mut batch, mut probes) = (vec![], vec![]);
        for mut transaction in made.by_ref().take((due - sent) as usize) {
            sent += 1;
            transaction.event_time = now();
            transaction.transaction_id = format!("live-{sent}");
            if sent % every == 0 {
                let id = PROBE_IDS + i64::try_from(sent)?;
                (transaction.user_id, transaction.card_id, transaction.status) = (id, id, "approved");
                probes.push(id);
            }
            let key = transaction.card_id.to_string();
            let mut bytes = vec![];
            encoder.encode(&Record::Transaction(transaction), &mut bytes)?;
            batch.push(Datum { at: now(), key, bytes });
        }
        if batch.is_empty() {
            continue;
        }
        let at = Instant::now();
        waiting.lock().probes.extend(probes.into_iter().map(|id| (id, at)));
        let intake = intake.clone();
        answers.spawn(async move { intake.append(TRANSACTIONS, batch).await });
    }
    let took = started.elapsed();
    while let Some(answer) = answers.join_next().await {
        answer??;
    }
    Ok((sent, took))
}

/// Reads the probes that wait until they are there: when each was sent, and milliseconds until it was there.
async fn look(reader: Reader, view: Arc<FeatureView>, waiting: Waiting) -> Result<Vec<(Instant, f64)>> {
    let mut seen = vec![];
    loop {
        let (users, over) = {
            let state = waiting.lock();
            (state.probes.keys().copied().collect::<Vec<i64>>(), state.over)
        };
        if over.is_some_and(|over| users.is_empty() || over.elapsed() > REST) {
            return Ok(seen);
        }
        if !users.is_empty() {
            let keys: ArrayRef = Arc::new(Int64Array::from(users.clone()));
            let asked = Instant::now();
            let answer = reader.view(&view, &[keys], &vec![now(); users.len()]).await?;
            let mut state = waiting.lock();
            state.reads.push(asked.elapsed().as_secs_f64() * 1e3);
            let statuses = answer.views.first().map(|view| view.status.as_slice()).unwrap_or_default();
            for (row, user) in users.iter().enumerate() {
                let present = statuses.get(row) == Some(&ReadStatus::Present);
                if present
                    && number(&answer.values, "txn_count_1h", row)? >= 1.0
                    && let Some(at) = state.probes.remove(user)
                {
                    seen.push((at, at.elapsed().as_secs_f64() * 1e3));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the stream's answers can be trusted.
async fn ready(url: String) -> Result<()> {
    let since = Instant::now();
    loop {
        let ask = url.clone();
        let answered = tokio::task::spawn_blocking(move || ureq::get(format!("{ask}/ready")).call().is_ok()).await?;
        if answered {
            return Ok(());
        }
        ensure!(since.elapsed() < Duration::from_secs(60), "the stream did not get ready within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The sum of a metric's samples, by its name.
fn metrics(url: &str) -> Result<impl Fn(&str) -> f64 + Send + use<>> {
    let text = ureq::get(format!("{url}/metrics")).call()?.body_mut().read_to_string()?;
    Ok(move |name: &str| {
        let samples =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    })
}

fn mean_ms(metrics: &impl Fn(&str) -> f64, histogram: &str) -> f64 {
    metrics(&format!("{histogram}_sum")) / metrics(&format!("{histogram}_count")).max(1.0) * 1e3
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Of ascending numbers.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|q| quantile(&values, q)), [50.0, 99.0, 100.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
