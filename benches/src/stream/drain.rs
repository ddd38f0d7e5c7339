//! The engine over a backlog: from the start of the process to its end, as a person would run it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::Place;
use crate::project::Scratch;
use tidemark_benches::process::{Running, Used, machine_busy};
use tidemark_benches::redis_server::{Facts, RedisServer, facts};

const LIMIT: Duration = Duration::from_secs(1800);
const QUARTERS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

/// What one run did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Drained {
    pub events: u64,
    pub rejected: u64,
    pub events_per_second: f64,
    /// The whole process, its start included.
    pub used: Used,
    /// Of those, what the stream itself says that it took.
    pub stream_seconds: f64,
    /// Memory when a quarter, half, three quarters and all of the writes to Redis were done.
    pub rss_at_quarters: Vec<u64>,
    /// Beyond what Redis had before.
    pub redis: Facts,
    pub bytes_per_key: f64,
    pub bytes_per_event: f64,
    pub archive_bytes: u64,
    /// Seconds that both cores together were busy, and that the host kept from them.
    pub machine_busy_seconds: f64,
    pub machine_stolen_seconds: f64,
}

/// Drains a project into an empty Redis and an empty archive.
pub fn run(place: &Place, scratch: &Scratch, name: &str, redis: &RedisServer) -> Result<Drained> {
    scratch.forget_archive()?;
    let before = redis.reset()?;
    let mut connection = redis.connect()?;
    let mut command = scratch.command(place, name, &redis.url());
    command.args(["stream", "--until-end"]);
    let log = scratch.root.join("stream.log");
    let out = scratch.root.join("stream.json");
    command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&log)?).stdin(Stdio::null());

    let (busy, stolen) = machine_busy();
    let mut samples: Vec<(u64, u64)> = vec![];
    let mut asked = Instant::now();
    let running = Running::start(&mut command)?;
    let (status, used) = running.watch(LIMIT, |rss| {
        // Rarely, since it is Redis that is measured too.
        if asked.elapsed() >= Duration::from_secs(1) || samples.is_empty() {
            asked = Instant::now();
            samples.push((facts(&mut connection)?.writes(), rss));
        } else if let Some((_, latest)) = samples.last_mut().filter(|_| rss > 0) {
            *latest = rss;
        }
        Ok(())
    })?;
    let (busy_after, stolen_after) = machine_busy();
    let status = status.with_context(|| format!("the stream did not end within {LIMIT:?}"))?;
    ensure!(status.success(), "the stream failed: {}", read(&log));
    let after = redis.facts()?;
    let said: serde_json::Value = serde_json::from_str(&read(&out)).context("what stream printed")?;
    let of = |what: &str| said["sources"]["transactions"][what].as_u64().unwrap_or_default();
    let redis = after.since(&before);
    let events = of("events");
    Ok(Drained {
        events,
        rejected: of("rejected"),
        events_per_second: events as f64 / used.seconds,
        stream_seconds: said["seconds"].as_f64().unwrap_or_default(),
        rss_at_quarters: at_quarters(&samples, redis.writes()),
        bytes_per_key: redis.used_memory as f64 / redis.keys.max(1) as f64,
        bytes_per_event: redis.used_memory as f64 / events.max(1) as f64,
        redis,
        used,
        archive_bytes: scratch.archive_bytes(),
        machine_busy_seconds: busy_after - busy,
        machine_stolen_seconds: stolen_after - stolen,
    })
}

/// The run in the middle, by time.
pub fn median(runs: &mut [Drained]) -> Option<Drained> {
    runs.sort_by(|a, b| a.used.seconds.total_cmp(&b.used.seconds));
    runs.get(runs.len().saturating_sub(1) / 2).cloned()
}

/// The memory of the first sample that has so much of the work behind it.
fn at_quarters(samples: &[(u64, u64)], all: u64) -> Vec<u64> {
    let reached = |share: f64| samples.iter().find(|(calls, _)| *calls as f64 >= share * all as f64);
    QUARTERS.iter().filter_map(|share| reached(*share).or(samples.last()).map(|(_, rss)| *rss)).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::at_quarters;

    #[test]
    fn memory_is_taken_when_the_work_is_done() {
        let samples = [(0, 10), (30, 20), (60, 30), (80, 40), (99, 50)];
        assert_eq!(at_quarters(&samples, 100), [20, 30, 40, 50]);
        assert_eq!(at_quarters(&[], 100), Vec::<u64>::new());
    }
}
