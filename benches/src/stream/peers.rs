//! What others make of the same transactions: `peers/w4.py`, each in a Python of its own, its answers checked.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::Place;
use crate::answers::{Checked, Events, same};
use tidemark_benches::process::{Running, Used};
use tidemark_benches::redis_server::RedisServer;
use tidemark_benches::venv;

const NAMES: [&str; 8] = ["cnt_1h", "sum_1h", "avg_1h", "max_1h", "cnt_24h", "sum_24h", "avg_24h", "max_24h"];

/// How a peer did, or why there is nothing to say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Peer {
    pub name: String,
    pub events: usize,
    pub failed: Option<String>,
    pub version: String,
    pub events_per_second: Option<f64>,
    /// From the first write to the last: without a JVM's start, and without the events before the first write.
    pub seconds_after_first: f64,
    pub used: Used,
    pub checked: Checked,
}

/// What `w4.py` prints last.
#[derive(Debug, Deserialize)]
struct Said {
    seconds: f64,
    first: f64,
    version: String,
}

/// Never fails: a peer that can't run is a row that says so.
pub fn run(place: &Place, name: &str, (file, n): (&Path, usize), events: &Events, limit: u64) -> Peer {
    let peer = Peer { name: name.to_owned(), events: n, ..Peer::default() };
    match try_run(place, name, (file, n), events, limit) {
        Ok(done) => done,
        Err(error) => Peer { failed: Some(format!("{error:#}")), ..peer },
    }
}

fn try_run(place: &Place, name: &str, (file, n): (&Path, usize), events: &Events, limit: u64) -> Result<Peer> {
    let scripts = place.root.join("benches/peers");
    let environment = if name.starts_with("pyflink") { "flink" } else { "stream" };
    let python = venv::python(&scripts, environment)?;
    // A Redis of its own: what is there before would be its memory too.
    let redis = RedisServer::start(&place.work)?;
    let log = place.work.join(format!("{name}.log"));
    let out = place.work.join(format!("{name}.json"));
    let mut command = Command::new(python);
    command.arg(scripts.join("w4.py")).arg(name).arg(file).arg(redis.port.to_string()).current_dir(&place.work);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&log)?);
    let (status, used) = Running::start(&mut command)?.watch(Duration::from_secs(limit), |_| Ok(()))?;
    let Some(status) = status else { bail!("stopped after {limit} seconds") };
    let said = std::fs::read_to_string(&log)?;
    ensure!(status.success(), "it failed: {}", said.trim().lines().next_back().unwrap_or_default());
    let printed = std::fs::read_to_string(&out)?;
    let last = printed.trim().lines().next_back().context("it printed nothing")?;
    let said: Said = serde_json::from_str(last).with_context(|| format!("it printed {last}"))?;
    Ok(Peer {
        name: name.to_owned(),
        events: n,
        failed: None,
        version: said.version,
        events_per_second: Some(n as f64 / said.seconds),
        seconds_after_first: said.seconds - said.first,
        used: Used { seconds: said.seconds, ..used },
        checked: check(&redis, n, events)?,
    })
}

/// Compares every user's hash with what must be there.
fn check(redis: &RedisServer, n: usize, events: &Events) -> Result<Checked> {
    let expected = events.expected(n, 1000, |_| true);
    let mut connection = redis.connect()?;
    let mut checked = Checked { users: expected.len(), ..Checked::default() };
    let users: Vec<_> = expected.iter().collect();
    for some in users.chunks(1000) {
        let mut pipeline = redis::pipe();
        for (user, _) in some {
            pipeline.cmd("HMGET").arg(format!("txn:{user}")).arg(&NAMES);
        }
        let found: Vec<Vec<Option<f64>>> = pipeline.query(&mut connection)?;
        for ((_, (_, must)), found) in some.iter().zip(found) {
            match found.into_iter().collect::<Option<Vec<f64>>>() {
                None => checked.missing += 1,
                Some(found) => checked.wrong += usize::from(!same(&found, must)),
            }
        }
    }
    let keys = redis.facts()?.keys as usize;
    checked.wrong += keys.saturating_sub(expected.len());
    Ok(checked)
}
