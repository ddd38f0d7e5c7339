//! What the benchmarks share: where things are, what the machine is, processes watched from outside, a Redis of their own, and
//! the Pythons of peers.

pub mod machine;
pub mod process;
pub mod redis_server;
pub mod venv;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository, and the release binary beside the benchmark's.
pub fn beside() -> Result<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository's folder")?.to_owned();
    let tidemark = std::env::current_exe()?.with_file_name("tidemark");
    anyhow::ensure!(tidemark.exists(), "{} is missing: make builds it", tidemark.display());
    Ok((root, tidemark))
}

/// What is going on, for who waits.
pub fn say(what: &str) {
    eprintln!("{} {what}", chrono::Local::now().format("%H:%M:%S"));
}
