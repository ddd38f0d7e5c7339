//! Scratch projects: the shipped definitions, or the peers' one view, over topics of this run's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tidemark_engine::plan::Project;
use tidemark_generators::{Config, TRANSACTIONS, World};

use crate::Place;

/// The generator's own density, at scale: a customer has four transactions a day, a merchant thirteen.
pub const TRANSACTIONS_PER_DAY: f64 = 66_667.0;
const USERS: u32 = 16_667;
const MERCHANTS: u32 = 5_000;
/// The second source is there, and next to idle: the peers have none.
const CLICKS_PER_DAY: f64 = 50.0;
const SEED: u64 = 1;
/// Microseconds.
const DAY: i64 = 86_400_000_000;
pub const PARTITIONS: u32 = 4;

/// The peers' eight values of a user, in this project's words.
const SINGLE: &str = "
CREATE FEATURE VIEW txn WITH (lateness = '1 day') AS
SELECT
  user_id,
  COUNT(*) OVER hour AS cnt_1h, SUM(amount) OVER hour AS sum_1h, AVG(amount) OVER hour AS avg_1h, MAX(amount) OVER hour AS max_1h,
  COUNT(*) OVER day AS cnt_24h, SUM(amount) OVER day AS sum_24h, AVG(amount) OVER day AS avg_24h, MAX(amount) OVER day AS max_24h
FROM transactions
WINDOW
  hour AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
  day  AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day'  PRECEDING AND CURRENT ROW);
";

/// A project folder.
#[derive(Debug, Clone)]
pub struct Scratch {
    pub root: PathBuf,
    pub topic: String,
}

/// What the generator says that it made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Made {
    pub transactions: u64,
    pub clicks: u64,
}

impl Scratch {
    /// What ships, with its sources' topics renamed.
    pub fn shipped(place: &Place) -> Result<Scratch> {
        let scratch = Scratch::new(place, "shipped")?;
        for folder in ["features", "schemas"] {
            copy(&place.root.join(folder), &scratch.root.join(folder))?;
        }
        for source in ["transactions", "clicks"] {
            rename_topic(&scratch.root.join(format!("features/sources/{source}.sql")), source, &topic(place, source))?;
        }
        Ok(scratch)
    }

    /// The peers' view alone, over the same topic.
    pub fn single(place: &Place) -> Result<Scratch> {
        let scratch = Scratch::new(place, "single")?;
        copy(&place.root.join("schemas"), &scratch.root.join("schemas"))?;
        let source = scratch.root.join("features/transactions.sql");
        std::fs::create_dir_all(scratch.root.join("features"))?;
        std::fs::copy(place.root.join("features/sources/transactions.sql"), &source)?;
        rename_topic(&source, "transactions", &scratch.topic)?;
        std::fs::write(scratch.root.join("features/txn.sql"), SINGLE)?;
        Ok(scratch)
    }

    fn new(place: &Place, name: &str) -> Result<Scratch> {
        let root = place.work.join(name);
        std::fs::create_dir_all(&root)?;
        Ok(Scratch { root, topic: topic(place, "transactions") })
    }

    /// The binary, told of this project and of the services.
    pub fn command(&self, place: &Place, name: &str, redis: &str) -> Command {
        let mut command = Command::new(&place.tidemark);
        command.current_dir(&self.root).args(["--json", "--project", name, "--features"]);
        command.arg(self.root.join("features")).arg("--data").arg(self.root.join("data"));
        command.env("KAFKA_BROKERS", &place.brokers).env("SCHEMA_REGISTRY_URL", &place.registry);
        command.env("REDIS_URL", redis).stdin(Stdio::null());
        command
    }

    /// About so many transactions into Kafka, and the merchants' table beside them.
    pub fn generate(&self, place: &Place, events: u64) -> Result<Made> {
        let days = (events as f64 / TRANSACTIONS_PER_DAY).round().max(1.0);
        // Days of a week differ, so that few of them have more or less than the mean: the rate is set by what comes out.
        let end = Utc::now();
        let (to, first) = (end.timestamp_micros(), events as f64 / days);
        let trial = world(first)?;
        let found = trial.events(to - days as i64 * DAY, to).filter(|event| event.source() == TRANSACTIONS);
        let rate = first * events as f64 / found.count().max(1) as f64;
        let mut generate = self.command(place, &place.id, "");
        generate.args(["generate", "--to", "kafka", "--seed", &SEED.to_string(), "--days", &days.to_string()]);
        generate.args(["--end", &end.to_rfc3339_opts(SecondsFormat::Micros, true)]);
        generate.args(["--users", &USERS.to_string(), "--merchants", &MERCHANTS.to_string()]);
        generate.args(["--transactions-per-day", &rate.to_string(), "--clicks-per-day", &CLICKS_PER_DAY.to_string()]);
        let output = generate.output()?;
        ensure!(output.status.success(), "generate failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("what generate printed")
    }

    pub async fn load(&self) -> Result<Arc<Project>> {
        Ok(Arc::new(Project::load(&self.root, &self.root.join("features")).await?))
    }

    /// Forgets archive and dead letters, so that the next run begins at the beginning.
    pub fn forget_archive(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.root.join("data/offline")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Bytes of the archive.
    pub fn archive_bytes(&self) -> u64 {
        size(&self.root.join("data/offline/archive"))
    }
}

/// The customers and merchants of all runs.
pub fn world(transactions_per_day: f64) -> Result<World> {
    let world = Config {
        seed: SEED,
        users: USERS,
        merchants: MERCHANTS,
        transactions_per_day,
        clicks_per_day: CLICKS_PER_DAY,
        ..Config::default()
    };
    Ok(World::new(world)?)
}

pub fn topic(place: &Place, source: &str) -> String {
    format!("{}-{source}", place.id)
}

fn rename_topic(file: &Path, source: &str, topic: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.trim_start().starts_with("topic "));
    let line = line.with_context(|| format!("{}: no topic of source {source}", file.display()))?;
    let renamed = text.replace(line, &format!("  topic = '{topic}',\n  partitions = {PARTITIONS},"));
    Ok(std::fs::write(file, renamed)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { length(&entry.path()) }).sum()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
