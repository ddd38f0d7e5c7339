//! Who is measured, and a run of one: Parquet in, Parquet out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value as Json;
use tidemark_benches::process::{Running, Used};
use tidemark_benches::redis_server::RedisServer;
use tidemark_benches::{say, venv};

use crate::latest;

/// Where data, programs and answers are.
pub struct Place {
    pub scripts: PathBuf,
    pub data: PathBuf,
    pub tidemark: PathBuf,
    pub python: PathBuf,
    pub limit: u64,
    /// Where W5 writes to.
    pub redis: RedisServer,
}

/// A tool, and how it asks the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contender {
    /// `tidemark`, or `<tool>.<formulation>` as the scripts name it.
    pub name: String,
}

/// One run, or why there is none.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    pub failed: Option<String>,
    /// From the Parquet that is read to the Parquet that is written, within the process: without its start and its imports.
    pub seconds: f64,
    pub version: String,
    /// Bytes that went through temporary files.
    pub spilled: u64,
    /// Keys in Redis afterwards.
    pub keys: u64,
    pub used: Used,
}

impl Contender {
    pub fn ours() -> Self {
        Self { name: "tidemark".to_owned() }
    }

    fn peer(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub fn tool(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// Each tool with its fastest formulation that gives right answers, ours first.
pub fn all(workload: &str, size: &str, peers: &[String]) -> Vec<Contender> {
    let forms: &[&str] = match (workload, size) {
        ("w1", _) => &["polars.rolling", "duckdb.union", "datafusion.union"],
        // Feast takes 8 GB at ten million and does not finish.
        ("w2", "M") => &["polars.asof", "duckdb.asof"],
        ("w5", "M") => &["floor.duckdb"],
        ("w5", _) => &["floor.duckdb", "feast.duckdb"],
        _ => &["polars.asof", "duckdb.asof", "feast.duckdb"],
    };
    let wanted = forms.iter().map(|name| Contender::peer(name));
    let asked = |tool: &str| tool == "floor" || peers.iter().any(|peer| peer == tool);
    let wanted = wanted.filter(|contender| asked(contender.tool()));
    [Contender::ours()].into_iter().chain(wanted).collect()
}

/// Sizes over which everyone runs once.
pub fn is_large(size: &str) -> bool {
    size.starts_with('M')
}

/// How many events a size has.
pub fn events(size: &str) -> u64 {
    match size {
        "T" => 20_000,
        "S" => 1_000_000,
        "S3" => 3_000_000,
        "M" => 10_000_000,
        _ => 30_000_000,
    }
}

impl Place {
    /// Makes the data of a size, unless it is there.
    pub fn generate(&self, size: &str) -> Result<()> {
        let folder = self.data.join("data").join(size);
        if folder.join("features.parquet").exists() {
            return Ok(());
        }
        say(&format!("generating data, size {size}"));
        let status = self.script("gen.py").arg(size).status().context("the generator can't start")?;
        ensure!(status.success(), "the generator failed");
        Ok(())
    }

    pub fn run(&self, workload: &str, size: &str, contender: &Contender, venvs: &Path) -> Run {
        self.warm(size);
        if !is_large(size) {
            // Unmeasured: it finds programs, files and memory colder than the one behind it.
            let _ = self.once(workload, size, contender, venvs);
        }
        self.once(workload, size, contender, venvs)
    }

    fn once(&self, workload: &str, size: &str, contender: &Contender, venvs: &Path) -> Run {
        let reset = if workload == "w5" { self.redis.reset().map(|_| ()) } else { Ok(()) };
        let done = reset.and_then(|()| match contender.tool() {
            "tidemark" if workload == "w5" => self.load(size),
            "tidemark" => self.ours(workload, size),
            tool => self.peer(workload, size, &contender.name, tool == "feast", venvs),
        });
        let keys = self.redis.facts().map_or(0, |facts| facts.keys);
        let done = done.map(|run| Run { keys, ..run });
        done.unwrap_or_else(|error| Run { failed: Some(format!("{error:#}")), ..Run::default() })
    }

    /// Reads the data, so that everyone finds it in the page cache, whoever was before.
    fn warm(&self, size: &str) {
        for file in std::fs::read_dir(self.data.join("data").join(size)).into_iter().flatten().flatten() {
            // What can't be read fails where it is needed.
            if let Ok(mut file) = std::fs::File::open(file.path()) {
                let _ = std::io::copy(&mut file, &mut std::io::sink());
            }
        }
    }

    /// Compares everyone's answers with those of DuckDB: counts and strings exactly, doubles within 1e-9.
    pub fn compare(&self, workload: &str, size: &str, contenders: &[Contender]) -> Result<Vec<(String, String)>> {
        let out = |contender: &Contender| {
            self.data.join("out").join(size).join(format!("{workload}_{}.parquet", contender.name))
        };
        let Some(reference) = contenders.iter().find(|contender| contender.tool() == "duckdb") else {
            return Ok(vec![]);
        };
        let mut answers = vec![];
        for contender in contenders.iter().filter(|contender| *contender != reference && out(contender).exists()) {
            let said = self.script("check.py").arg("label_id").arg(out(reference)).arg(out(contender)).output()?;
            let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            let answer = said.split_once(' ').map_or("the comparison failed", |(_, answer)| answer).to_owned();
            answers.push((contender.name.clone(), answer));
        }
        Ok(answers)
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join(name)).env("PEERS_DIR", &self.data).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// A project over the data of a size.
    fn project(&self, workload: &str, size: &str) -> Result<PathBuf> {
        let folder = self.data.join("projects").join(format!("{workload}_{size}"));
        std::fs::create_dir_all(folder.join("features"))?;
        let sql = match workload {
            "w1" => include_str!("w1.sql"),
            "w2" => include_str!("w2.sql"),
            _ => include_str!("w5.sql"),
        };
        let sql = sql.replace("DATA", &self.data.join("data").join(size).display().to_string());
        std::fs::write(folder.join("features/bench.sql"), sql)?;
        Ok(folder)
    }

    /// The online store from history.
    fn load(&self, size: &str) -> Result<Run> {
        let folder = self.project("w5", size)?;
        // As if it were the first time.
        let _ = std::fs::remove_dir_all(folder.join("data"));
        let mut command = Command::new(&self.tidemark);
        command.args(["--json", "--project", latest::PROJECT, "backfill", "--view", "latest", "--online"]);
        command.arg("--redis-url").arg(self.redis.url()).current_dir(&folder);
        let (said, used) = self.watch(&mut command, &folder, "tidemark")?;
        let said: Json = serde_json::from_str(&said).with_context(|| format!("it printed {said}"))?;
        let seconds = said["seconds"].as_f64().context("it did not say how long it took")?;
        Ok(Run { seconds, version: env!("CARGO_PKG_VERSION").to_owned(), used, ..Run::default() })
    }

    /// The rows that W5 left in Redis, where they can be read plainly.
    pub fn latest(&self, size: &str, contender: &Contender) -> Option<Result<latest::Rows>> {
        match contender.tool() {
            "tidemark" => Some(self.project("w5", size).and_then(|folder| latest::ours(&folder, &self.redis))),
            "floor" => Some(latest::floor(&self.redis)),
            _ => None,
        }
    }

    fn ours(&self, workload: &str, size: &str) -> Result<Run> {
        let folder = self.project(workload, size)?;
        let data = self.data.join("data").join(size);
        let out = self.data.join("out").join(size).join(format!("{workload}_tidemark.parquet"));
        let mut command = Command::new(&self.tidemark);
        command.args(["--json", "training-set", "--service", workload, "--timestamp", "label_time", "--spine"]);
        command.arg(data.join("labels.parquet")).arg("--out").arg(&out).current_dir(&folder);
        let (said, used) = self.watch(&mut command, &folder, "tidemark")?;
        let said: Json = serde_json::from_str(&said).with_context(|| format!("it printed {said}"))?;
        let seconds = said["seconds"].as_f64().context("it did not say how long it took")?;
        let spilled = said["spilled"].as_u64().unwrap_or_default();
        Ok(Run { seconds, version: env!("CARGO_PKG_VERSION").to_owned(), spilled, used, ..Run::default() })
    }

    fn peer(&self, workload: &str, size: &str, name: &str, feast: bool, venvs: &Path) -> Result<Run> {
        let python = if feast { venv::python(venvs, "feast")? } else { self.python.clone() };
        let mut command = Command::new(python);
        command.arg(self.scripts.join(format!("{workload}.py"))).arg(name).arg(size);
        command.env("PEERS_DIR", &self.data).env("PYTHONDONTWRITEBYTECODE", "1").env("FEAST_USAGE", "False");
        command.env("PEERS_REDIS_PORT", self.redis.port.to_string());
        let (said, used) = self.watch(&mut command, &self.data, name)?;
        let said = said.strip_prefix("RESULT ").with_context(|| format!("it printed {said}"))?;
        let said: Json = serde_json::from_str(said)?;
        let seconds = said["s"].as_f64().context("it did not say how long it took")?;
        let version = said["version"].as_str().unwrap_or_default().to_owned();
        Ok(Run { seconds, version, used, ..Run::default() })
    }

    /// The last line that a program prints, and what it used.
    fn watch(&self, command: &mut Command, folder: &Path, name: &str) -> Result<(String, Used)> {
        let (out, log) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&log)?);
        let (status, used) = Running::start(command)?.watch(Duration::from_secs(self.limit), |_| Ok(()))?;
        let Some(status) = status else { bail!("stopped after {} seconds", self.limit) };
        let said = std::fs::read_to_string(&log)?;
        ensure!(status.success(), "it failed: {}", said.trim().lines().next_back().unwrap_or_default());
        let printed = std::fs::read_to_string(&out)?;
        Ok((printed.trim().lines().next_back().context("it printed nothing")?.to_owned(), used))
    }
}
