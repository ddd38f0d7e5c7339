//! A platform as a process of its own: this binary, `up`, on a free port.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::client::{Client, samples};
use crate::settings::Settings;

const POLL: Duration = Duration::from_millis(100);

/// A running `tidemark up`; killed when dropped.
#[derive(Debug)]
pub struct Platform {
    child: Child,
    client: Client,
    log: PathBuf,
    started: Instant,
}

/// How the platform became fresh.
#[derive(Debug)]
pub struct Fresh {
    pub seconds: f64,
    /// Live events absorbed.
    pub events: u64,
}

impl Platform {
    /// Starts it with live traffic, and returns when it listens.
    pub fn start(project: &Settings, live: f64) -> Result<Self> {
        let log = project.root.join("up.log");
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--features")
            .arg(&project.features)
            .arg("--data")
            .arg(&project.data)
            .arg("--offline")
            .arg(project.folder().offline())
            .args(["--json", "up", "--listen", "127.0.0.1:0", "--generate", &live.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("can't start `tidemark up`")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said: Json = serde_json::from_str(&line).unwrap_or_default();
        let Some(url) = said.get("url").and_then(Json::as_str) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`tidemark up` did not start: {}", std::fs::read_to_string(&log)?.trim());
        };
        Ok(Self { child, client: Client::new(url), log, started })
    }

    pub fn url(&self) -> &str {
        self.client.base()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until it is ready, live events have arrived, and none waits to be absorbed.
    pub fn wait_until_fresh(&mut self, patience: Duration) -> Result<Fresh> {
        let deadline = Instant::now() + patience;
        loop {
            let ready = self.client.get("/ready", &[])?;
            let metrics = self.client.get("/metrics", &[])?.text;
            let sum = |metric: &str| samples(&metrics, metric).iter().map(|s| s.value).sum::<f64>();
            let events = sum("tidemark_source_events_total") as u64;
            if ready.ok() && events > 0 && sum("tidemark_source_lag_events") == 0.0 {
                return Ok(Fresh { seconds: self.started.elapsed().as_secs_f64(), events });
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("`tidemark up` ended with {status}: {}", std::fs::read_to_string(&self.log)?.trim());
            }
            if Instant::now() > deadline {
                bail!(
                    "the platform is not fresh after {} s: {}; its log is {}",
                    patience.as_secs(),
                    ready.text.trim(),
                    self.log.display()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to stop, and waits until it has committed.
    pub fn stop(&mut self) -> Result<()> {
        terminate(&mut self.child)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    bail!("`tidemark up` ended with {status}: {}", std::fs::read_to_string(&self.log)?.trim())
                }
                None => std::thread::sleep(POLL),
            }
        }
        bail!("`tidemark up` does not stop; its log is {}", self.log.display())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM where there is one. The standard library sends no signal but SIGKILL, hence the shell.
fn terminate(child: &mut Child) -> Result<()> {
    if cfg!(unix) {
        Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {}", child.id()))
            .status()
            .context("can't stop `tidemark up`")?;
    } else {
        child.kill()?;
    }
    Ok(())
}
