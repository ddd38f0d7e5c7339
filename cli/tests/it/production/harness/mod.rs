//! What tests of production stand on: a topic of its own for each, projects over it with engines and what to compare,
//! servers that a test may harm.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};

use crate::crash::START;
use crate::support::Up;

mod servers;
mod shop;
mod topic;

pub use servers::{Proxy, Redis, free_port};
pub use shop::Shop;
pub use topic::Topic;

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

/// A payment of user 1.
pub fn payment(i: usize) -> Json {
    json!({"id": format!("p{i}"), "user_id": 1, "shop": "shop 1", "amount": 1.0, "note": null, "at": START})
}

/// Events and rejects of the payments, as a drain says them.
pub fn events_of(said: &Json) -> (u64, u64) {
    let of = |key: &str| said["sources"]["payments"][key].as_u64().unwrap();
    (of("events"), of("rejected"))
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

/// How far behind an engine is in each partition that it reads now, of all sources.
fn lags(up: &Up) -> Vec<f64> {
    let metrics = up.metrics();
    let lags = metrics.lines().filter(|line| line.starts_with("tidemark_source_lag_events{"));
    lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

/// Whether the engine has absorbed everything of the partitions that it has; and it has some.
pub fn caught_up(up: &Up) -> bool {
    let lags = lags(up);
    !lags.is_empty() && lags.iter().all(|lag| *lag == 0.0)
}

/// Partitions that an engine reads now, of all sources.
pub fn owned(up: &Up) -> usize {
    lags(up).len()
}

/// Whether an engine says that it waits, and why.
pub fn says_stalled(up: &Up, why: &str) -> bool {
    let (status, answer) = up.get("/ready");
    status == 503 && answer["reasons"].to_string().contains("stalled") && answer.to_string().contains(why)
}

pub fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/services"))
}

/// Runs one of Kafka's own tools; what it printed, if it succeeded.
pub fn kafka_tool(class: &str, args: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(script()).args(["tool", class]).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
}
