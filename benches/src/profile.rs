//! Where the engine's CPU time goes: a drain under `perf`, each sample given to the part of the engine that it was in.
//!
//! A stack is walked from its innermost frame outwards; the first frame that a part knows decides. Waiting is no sample:
//! beside the shares stand the threads' CPU seconds, and the run's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::project::Scratch;
use crate::redis_server::RedisServer;
use crate::{Place, drain};

/// Samples a second of each thread that runs. Unwinding copies stacks, so that more would measure itself.
const FREQUENCY: u32 = 199;
/// Bytes of stack that are copied; async frames are deep.
const STACK: u32 = 16_384;
const TOP: usize = 12;

/// What tells a part of the engine, most specific first.
const PARTS: [(&str, &[&str]); 17] = [
    ("archive: Parquet", &["parquet::", "offline::archive", "ArchiveWriter", "ZSTD_", "zstd"]),
    ("Avro decode", &["source::decode", "arrow_avro", "finish_run", "normalise"]),
    ("row stage", &["plan::rows", "plan::pipeline", "FeatureView>::rows", "FeatureView::rows", "datafusion"]),
    ("encode pieces", &["encode_changes", "kernel::encoding", "encode_piece"]),
    ("fold: group rows by key", &["stream::fold::group", "EventRows>::take", "EventRows::take"]),
    ("fold: into timelines", &["Kernel>::fold", "Kernel::fold", "kernel::absorb", "kernel::piece", "kernel::tile"]),
    ("fold: cache", &["stream::cache"]),
    ("load: decode pieces", &["decode_piece", "request::decode"]),
    ("kernel, other", &["engine::kernel"]),
    ("Redis: layout of reads", &["online::redis::layout"]),
    ("Redis: commands and answers", &["online::redis", "redis::", "combine"]),
    ("Kafka client", &["rd_kafka", "rdkafka", "source::kafka", "kafka::consumer", "LZ4", "crc32c", "murmur"]),
    ("fold: rest", &["stream::fold", "ViewFold"]),
    ("worker: rest", &["stream::worker", "stream::events", "stream::owned", "arrow_select", "arrow::compute"]),
    ("runtime", &["tokio::", "mio::", "futures_"]),
    ("definitions: read and compiled at the start", &["plan::", "catalog", "sqlparser", "engine::sql"]),
    ("kernel of the operating system", &["entry_SYSCALL", "do_syscall", "asm_", "ret_from_fork"]),
];

#[derive(Debug, Clone, Default, Serialize)]
pub struct Profile {
    pub samples: u64,
    /// Shares of the CPU time, from 0 to 1.
    pub parts: Vec<(String, f64)>,
    pub functions: Vec<(String, f64)>,
    pub events_per_second: f64,
    pub seconds: f64,
    /// CPU seconds by thread.
    pub threads: Vec<(String, f64)>,
    pub redis_cpu_seconds: f64,
}

pub fn run(place: &Place, scratch: &Scratch, redis: &RedisServer) -> Result<Profile> {
    ensure!(Command::new("perf").arg("--version").output().is_ok(), "perf is not installed (Debian: linux-perf)");
    let data = place.work.join("perf.data");
    let perf = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F"].map(str::to_owned).into_iter();
    let rest = [FREQUENCY.to_string(), "--call-graph".into(), format!("dwarf,{STACK}"), "-o".into()];
    let perf: Vec<String> = perf.chain(rest).chain([data.display().to_string(), "--".into()]).collect();
    let name = format!("{}-perf", place.id);
    let drained = drain::run(place, scratch, &name, redis, &perf)?;
    let (mut profile, threads) = read(&data)?;
    profile.threads = threads.into_iter().map(|(name, samples)| (name, samples / f64::from(FREQUENCY))).collect();
    profile.threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    profile.events_per_second = drained.events_per_second;
    profile.seconds = drained.used.seconds;
    profile.redis_cpu_seconds = drained.redis.cpu_seconds;
    Ok(profile)
}

fn read(data: &Path) -> Result<(Profile, BTreeMap<String, f64>)> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(data).stderr(Stdio::null());
    let output = script.output().context("perf script")?;
    ensure!(output.status.success(), "perf script failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut parts, mut functions, mut threads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut samples = 0;
    for sample in text.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        let mut lines = sample.trim_start_matches('\n').lines();
        let thread = lines.next().unwrap_or_default().trim().to_owned();
        let frames: Vec<&str> = lines.filter_map(|line| Some(line.trim().split_once(' ')?.1)).collect();
        if thread == "perf" || thread.starts_with("perf-exec") {
            continue;
        }
        samples += 1;
        *threads.entry(thread.clone()).or_insert(0.0) += 1.0;
        *parts.entry(part(&thread, &frames)).or_insert(0_u64) += 1;
        *functions.entry(frames.first().copied().unwrap_or("unknown").to_owned()).or_insert(0_u64) += 1;
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
    Ok((profile, threads))
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
        let frames = ["malloc", "tidemark_engine::kernel::encoding::bytes::put", "tidemark_engine::stream::fold::x"];
        assert_eq!(part("tidemark", &frames), "encode pieces");
        assert_eq!(part("rdk:broker1", &["read"]), "Kafka client");
        assert_eq!(part("tidemark", &["malloc"]), "unknown");
    }
}
