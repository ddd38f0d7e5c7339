//! A process and its children, watched from outside: time, CPU, memory.

use std::collections::{BTreeMap, HashSet};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// How often to look at the process itself: what is soon over must be seen all the same.
const LOOK: Duration = Duration::from_millis(20);
/// How often to look at its threads and children, for which all of /proc is read: on two cores, more would be a load of its own.
const SAMPLE: Duration = Duration::from_millis(200);
/// Linux counts CPU time for programs in hundredths of a second, whatever its own clock.
const TICKS: f64 = 100.0;

/// What a process used until it ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Used {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Of all processes together.
    pub peak_rss: u64,
    /// CPU seconds by the name of the thread, of the process itself.
    pub threads: BTreeMap<String, f64>,
}

/// A child that doesn't outlive its owner, nor do its children.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    started: Instant,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Running> {
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{} can't start", command.get_program().display()))?;
        Ok(Running { child, started })
    }

    /// Waits for the end, or stops it after a while (None then). `sample` is called several times a second with the
    /// memory that it has.
    pub fn watch(
        mut self,
        limit: Duration,
        mut sample: impl FnMut(u64) -> Result<()>,
    ) -> Result<(Option<ExitStatus>, Used)> {
        let mut used = Used::default();
        let mut sampled: Option<Instant> = None;
        loop {
            used.peak_rss = used.peak_rss.max(kilobytes(self.child.id(), "VmHWM:"));
            used.cpu_seconds = used.cpu_seconds.max(cpu_seconds(&format!("/proc/{}/stat", self.child.id())));
            if sampled.is_none_or(|at| at.elapsed() >= SAMPLE) {
                sampled = Some(Instant::now());
                let rss = self.look(&mut used);
                sample(rss)?;
            }
            if let Some(status) = self.child.try_wait()? {
                used.seconds = self.started.elapsed().as_secs_f64();
                return Ok((Some(status), used));
            }
            if self.started.elapsed() >= limit {
                used.seconds = self.started.elapsed().as_secs_f64();
                return Ok((None, used));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Adds what can be seen now; returns the memory of now.
    fn look(&self, used: &mut Used) -> u64 {
        let (mut rss, mut cpu) = (0, 0.0);
        for pid in tree(self.child.id()) {
            rss += kilobytes(pid, "VmRSS:");
            cpu += cpu_seconds(&format!("/proc/{pid}/stat"));
        }
        used.peak_rss = used.peak_rss.max(rss);
        used.cpu_seconds = used.cpu_seconds.max(cpu);
        for (thread, seconds) in threads(self.child.id()) {
            let most = used.threads.entry(thread).or_default();
            *most = most.max(seconds);
        }
        rss
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let rest = tree(self.child.id());
            let _ = self.child.kill();
            let _ = self.child.wait();
            let rest = rest.iter().filter(|pid| **pid != self.child.id()).map(u32::to_string);
            let _ = Command::new("kill").arg("-9").args(rest).stderr(std::process::Stdio::null()).status();
        }
    }
}

/// A process and all that descends from it.
fn tree(root: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = vec![];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat(&format!("/proc/{pid}/stat")).and_then(|fields| fields.get(1)?.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut seen = HashSet::from([root]);
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && seen.insert(*pid)).map(|(pid, _)| *pid));
    }
    found
}

/// The fields of a `stat` file behind the name, which may have blanks in it.
fn stat(path: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn cpu_seconds(path: &str) -> f64 {
    let fields = stat(path).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS
}

/// CPU seconds of a process' threads, those of one name together.
fn threads(pid: u32) -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = task.path().display().to_string();
        let name = std::fs::read_to_string(format!("{path}/comm")).unwrap_or_default();
        *threads.entry(name.trim().to_owned()).or_default() += cpu_seconds(&format!("{path}/stat"));
    }
    threads
}

/// A line of a process' status, in bytes.
fn kilobytes(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse::<u64>().ok());
    found.unwrap_or_default() * 1024
}

/// Seconds that all cores together were busy, and that the machine under this one took.
pub fn machine_busy() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let at = |i: usize| fields.get(i).copied().unwrap_or_default() / TICKS;
    (at(0) + at(1) + at(2) + at(5) + at(6), at(7))
}

/// Memory of one process.
pub fn rss(pid: u32) -> u64 {
    kilobytes(pid, "VmRSS:")
}
