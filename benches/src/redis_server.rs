//! A Redis of the benchmark's own, so that memory, keys and counts are nobody else's.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Ends with its owner.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    pub port: u16,
}

/// What a Redis says of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    pub version: String,
    pub keys: u64,
    pub used_memory: u64,
    pub net_input_bytes: u64,
    pub net_output_bytes: u64,
    pub cpu_seconds: f64,
    /// Calls and microseconds, by command.
    pub commands: BTreeMap<String, (u64, u64)>,
}

impl RedisServer {
    /// On a free port of loopback, keeping nothing on disk.
    pub fn start(folder: &Path) -> Result<RedisServer> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]).arg(port.to_string());
        server.arg("--dir").arg(folder).stdout(Stdio::null()).stdin(Stdio::null());
        let child = server.spawn().context("redis-server can't start; hint: infra/services start redis installs it")?;
        let server = RedisServer { child, port };
        let since = Instant::now();
        while server.connect().is_err() {
            ensure!(since.elapsed() < Duration::from_secs(10), "redis-server doesn't answer on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> Result<redis::Connection> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    /// Empty, its counts at zero.
    pub fn reset(&self) -> Result<Facts> {
        let mut connection = self.connect()?;
        redis::cmd("FLUSHALL").arg("SYNC").query::<()>(&mut connection)?;
        redis::cmd("SCRIPT").arg("FLUSH").query::<()>(&mut connection)?;
        redis::cmd("CONFIG").arg("RESETSTAT").query::<()>(&mut connection)?;
        facts(&mut connection)
    }

    pub fn facts(&self) -> Result<Facts> {
        facts(&mut self.connect()?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Facts {
    /// Calls of a command.
    pub fn calls(&self, command: &str) -> u64 {
        self.commands.get(command).map_or(0, |(calls, _)| *calls)
    }

    /// Commands that set fields, in a script or not.
    pub fn writes(&self) -> u64 {
        self.calls("hset") + self.calls("hsetnx")
    }

    /// What happened since, and how much is there now.
    pub fn since(&self, before: &Facts) -> Facts {
        Facts {
            used_memory: self.used_memory.saturating_sub(before.used_memory),
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            ..self.clone()
        }
    }
}

pub fn facts(connection: &mut redis::Connection) -> Result<Facts> {
    let info: String = redis::cmd("INFO").arg("everything").query(connection)?;
    let lines: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let number = |name: &str| lines.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let commands = lines.iter().filter_map(|(name, text)| {
        let of = |what: &str| {
            let value = text.split(',').find_map(|part| part.strip_prefix(what)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        Some((name.strip_prefix("cmdstat_")?.to_owned(), (of("calls")?, of("usec")?)))
    });
    Ok(Facts {
        version: lines.get("redis_version").copied().unwrap_or_default().to_owned(),
        keys: redis::cmd("DBSIZE").query(connection)?,
        used_memory: number("used_memory") as u64,
        net_input_bytes: number("total_net_input_bytes") as u64,
        net_output_bytes: number("total_net_output_bytes") as u64,
        cpu_seconds: number("used_cpu_user") + number("used_cpu_sys"),
        commands: commands.collect(),
    })
}
