//! Where the figures are from.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    pub at: String,
    pub cores: usize,
    pub processor: String,
    pub memory_mb: u64,
    pub kernel: String,
    /// Of the last minute, before anything was measured: what else runs makes figures worse.
    pub load: f64,
    pub tidemark: String,
    pub commit: String,
    pub redis: String,
    pub java: String,
}

/// `root`: the repository. `tidemark`: the binary that is measured.
pub fn facts(root: &Path, tidemark: &Path) -> Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default();
    Ok(Machine {
        at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        cores: std::thread::available_parallelism()?.get(),
        processor: after(&read("/proc/cpuinfo"), "model name"),
        memory_mb: memory / 1000,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        tidemark: says(Command::new(tidemark).arg("--version")),
        commit: says(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root)),
        redis: says(Command::new("redis-server").arg("--version")),
        java: says(Command::new("java").arg("-version")),
    })
}

/// The first line that a program prints.
fn says(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "missing".to_owned() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
