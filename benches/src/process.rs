//! A process and its children, watched from outside: time, CPU, memory.

use std::collections::{BTreeMap, HashSet};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use wait4::Wait4;

/// How often to look at it, its threads and its children, for which all of /proc is read: on two cores, more would be a load of its own.
/// The most that it had between two looks, and all of what is soon over, the kernel says at the end, unless the benchmark itself has more.
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
    /// The most memory that this process had by then: the kernel counts it as the child's too, which was a copy of it before it became itself.
    copied: u64,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Running> {
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{} can't start", command.get_program().display()))?;
        Ok(Running { child, started, copied: kilobytes(std::process::id(), "VmHWM:") })
    }

    /// Waits for the end, or stops it after a while (None then). `sample` is called several times a second with the
    /// memory that it has.
    pub fn watch(
        mut self,
        limit: Duration,
        mut sample: impl FnMut(u64) -> Result<()>,
    ) -> Result<(Option<ExitStatus>, Used)> {
        let (pid, started, copied) = (self.child.id(), self.started, self.copied);
        let mut used = Used::default();
        std::thread::scope(|scope| {
            let (over, ends) = channel();
            let child = &mut self.child;
            scope.spawn(move || over.send((child.wait4(), started.elapsed())));
            let mut looked = look(pid, &mut used);
            loop {
                let stopped = sample(looked).err().map(Err).or((started.elapsed() >= limit).then_some(Ok(None)));
                if let Some(stopped) = stopped {
                    kill(&tree(pid));
                    used.seconds = started.elapsed().as_secs_f64();
                    return stopped.map(|status| (status, used));
                }
                if let Ok((ended, after)) = ends.recv_timeout(SAMPLE) {
                    let ended = ended?;
                    let cpu = (ended.rusage.utime + ended.rusage.stime).as_secs_f64();
                    used.seconds = after.as_secs_f64();
                    used.cpu_seconds = used.cpu_seconds.max(cpu);
                    if ended.rusage.maxrss > copied {
                        used.peak_rss = used.peak_rss.max(ended.rusage.maxrss);
                    }
                    return Ok((Some(ended.status), used));
                }
                looked = look(pid, &mut used);
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(&tree(self.child.id()));
            let _ = self.child.wait();
        }
    }
}

fn kill(processes: &[u32]) {
    let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
    // A shell's own: not every machine has a program for it.
    let kill = format!("kill -9 {} 2>/dev/null", processes.join(" "));
    if let Err(error) = Command::new("sh").args(["-c", &kill]).status() {
        // Who waits for them would wait for ever.
        eprintln!("processes {} can't be ended: {error}", processes.join(", "));
        std::process::exit(1);
    }
}

/// Adds what can be seen now of a process and its children; returns their memory of now.
fn look(root: u32, used: &mut Used) -> u64 {
    let (mut rss, mut cpu) = (0, 0.0);
    for pid in tree(root) {
        rss += kilobytes(pid, "VmRSS:");
        cpu += cpu_seconds(&format!("/proc/{pid}/stat"));
    }
    used.peak_rss = used.peak_rss.max(rss).max(kilobytes(root, "VmHWM:"));
    used.cpu_seconds = used.cpu_seconds.max(cpu);
    for (thread, seconds) in threads(root) {
        let most = used.threads.entry(thread).or_default();
        *most = most.max(seconds);
    }
    rss
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
