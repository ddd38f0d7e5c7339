//! Where the engine's CPU time goes: a drain under `perf`, each sample given to the part of the engine that it was in.
//!
//! A stack is walked from its innermost frame outwards; the first frame that a part knows decides. Waiting is no sample:
//! beside the shares stand the threads' CPU seconds, and the run's.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::Place;
use crate::project::Scratch;
use tidemark_benches::process::Running;
use tidemark_benches::redis_server::RedisServer;

/// Samples a second of each thread that runs. Unwinding copies stacks, so that more would measure itself.
const FREQUENCY: u32 = 99;
/// Bytes of stack that are copied; async frames are deep.
const STACK: u32 = 16_384;
const LIMIT: Duration = Duration::from_secs(600);
const TOP: usize = 15;

/// What tells a part of the engine, most specific first.
const PARTS: [(&str, &[&str]); 20] = [
    ("archive: Parquet", &["parquet::", "offline::archive", "ArchiveWriter", "ZSTD_", "zstd"]),
    ("decode Avro", &["source::decode", "arrow_avro", "source::normalise"]),
    ("row stage", &["plan::rows", "plan::pipeline", "datafusion_physical", "datafusion_functions"]),
    ("group rows by key", &["stream::fold::group", "EventRows::take"]),
    ("keys as text", &["kernel::key"]),
    ("exact sums", &["kernel::exact", "kernel::big"]),
    ("ids of events", &["kernel::identity", "sha2::", "::knows", "RowChunks::holds"]),
    (
        "encode pieces",
        &["encode_changes", "write_changed", "write_head", "write_rows", "column::write", "state::write", "Writer"],
    ),
    (
        "load: decode pieces",
        &[
            "decode_head",
            "::supply",
            "::needs",
            "redis::layout::piece",
            "read_rows",
            "column::read",
            "state::read",
            "Reader",
        ],
    ),
    ("cache", &["stream::cache"]),
    (
        "fold into timelines",
        &[
            "kernel::absorb",
            "kernel::chunk",
            "kernel::piece",
            "kernel::tile",
            "kernel::fold",
            "EventRows::concat",
            "EventRows::slice",
        ],
    ),
    (
        "free: rows and timelines dropped",
        &["drop_in_place<tidemark_engine::kernel", "drop_in_place<tidemark_engine::stream", "drop_slow"],
    ),
    ("Redis: commands and answers", &["online::redis", "redis::", "drop_in_place<tidemark_engine::online"]),
    ("Kafka client", &["rd_kafka", "rdkafka", "source::kafka", "kafka::consumer"]),
    ("kernel: rest", &["engine::kernel"]),
    ("fold: rest", &["stream::fold", "ViewFold"]),
    ("worker: rest", &["stream::worker", "stream::events", "stream::owned", "join_all", "maybe_done"]),
    (
        "definitions: compiled at the start",
        &["datafusion_", "sqlparser", "engine::plan", "engine::sql", "engine::catalog"],
    ),
    ("runtime", &["tokio::", "mio::", "futures_"]),
    ("system calls and page faults", &["entry_SYSCALL", "do_syscall", "asm_exc", "ret_from_fork"]),
];
/// Functions of the allocator.
const ALLOCATOR: [&str; 6] = ["malloc", "_int_free", "cfree", "unlink_chunk", "_int_realloc", "systrim"];

#[derive(Debug, Clone, Default, Serialize)]
pub struct Profile {
    pub samples: u64,
    /// Shares of the CPU time, from 0 to 1.
    pub parts: Vec<(String, f64)>,
    pub functions: Vec<(String, f64)>,
    /// Share of the samples that were in the allocator itself, whatever part called it.
    pub allocator: f64,
    pub seconds: f64,
    /// CPU seconds by thread.
    pub threads: Vec<(String, f64)>,
    pub redis_cpu_seconds: f64,
}

pub fn run(place: &Place, scratch: &Scratch, redis: &RedisServer) -> Result<Profile> {
    ensure!(Command::new("perf").arg("--version").output().is_ok(), "perf is not installed (Debian: linux-perf)");
    let data = place.work.join("perf.data");
    scratch.forget_archive()?;
    let before = redis.reset()?;
    let stream = scratch.command(place, &format!("{}-perf", place.id), &redis.url());
    // Started by perf, which sees all threads then, whenever they begin.
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "-e", "cpu-clock", "-F", &FREQUENCY.to_string()]);
    perf.args(["--call-graph", &format!("dwarf,{STACK}"), "-o"]).arg(&data).arg("--").arg(stream.get_program());
    perf.args(stream.get_args()).args(["stream", "--until-end"]);
    perf.envs(stream.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let folder = stream.get_current_dir().context("a folder")?;
    let said = place.work.join("perf.log");
    perf.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    let (status, used) = Running::start(&mut perf)?.watch(LIMIT, |_| Ok(()))?;
    let said = std::fs::read_to_string(&said).unwrap_or_default();
    ensure!(status.is_some_and(|status| status.success()), "perf record: {}", said.trim());
    let seconds = used.seconds;
    let redis_cpu_seconds = redis.facts()?.since(&before).cpu_seconds;
    let (mut profile, threads) = read(&data).with_context(|| format!("perf said: {}", said.trim()))?;
    profile.threads = threads.into_iter().map(|(name, samples)| (name, samples / f64::from(FREQUENCY))).collect();
    profile.threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Profile { seconds, redis_cpu_seconds, ..profile })
}

fn read(data: &Path) -> Result<(Profile, BTreeMap<String, f64>)> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(data).stderr(Stdio::null());
    let output = script.output().context("perf script")?;
    ensure!(output.status.success(), "perf script failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut parts, mut functions, mut threads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut samples, mut allocator) = (0_u64, 0_u64);
    for sample in text.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        let mut lines = sample.trim_start_matches('\n').lines();
        let thread = lines.next().unwrap_or_default().trim().to_owned();
        let frames: Vec<&str> = lines.filter_map(|line| Some(line.trim().split_once(' ')?.1)).collect();
        samples += 1;
        *threads.entry(thread.clone()).or_insert(0.0) += 1.0;
        *parts.entry(part(&thread, &frames)).or_insert(0_u64) += 1;
        let innermost = frames.first().copied().unwrap_or("unknown");
        allocator += u64::from(ALLOCATOR.iter().any(|name| innermost.contains(name)));
        *functions.entry(innermost.to_owned()).or_insert(0_u64) += 1;
    }
    ensure!(samples > 0, "perf took no sample");
    let shares = |counts: BTreeMap<String, u64>, most: usize| {
        let mut shares: Vec<_> =
            counts.into_iter().map(|(name, count)| (name, count as f64 / samples as f64)).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares.truncate(most);
        shares
    };
    let profile =
        Profile { samples, parts: shares(parts, usize::MAX), functions: shares(functions, TOP), ..Profile::default() };
    Ok((Profile { allocator: allocator as f64 / samples as f64, ..profile }, threads))
}

/// The part that a stack was in.
fn part(thread: &str, frames: &[&str]) -> String {
    for frame in frames {
        if let Some((part, _)) = PARTS.iter().find(|(_, names)| names.iter().any(|name| frame.contains(name))) {
            return (*part).to_owned();
        }
    }
    if thread.starts_with("rdk:") || thread.starts_with("kafka-") { "Kafka client".into() } else { "unknown".into() }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn the_innermost_known_frame_decides() {
        let frames = ["malloc", "tidemark_engine::kernel::Kernel::encode_changes", "tidemark_engine::stream::fold::x"];
        assert_eq!(part("tidemark", &frames), "encode pieces");
        assert_eq!(part("rdk:broker1", &["read"]), "Kafka client");
        assert_eq!(part("tidemark", &["malloc"]), "unknown");
    }
}
