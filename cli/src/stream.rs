//! `tidemark stream --until-end`: drains every source into the online store and the archive, and ends.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tidemark_engine::embedded::Embedded;
use tidemark_engine::stream::Summary;

use crate::console::{Progress, count, rate};
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// End when everything that the sources hold now is absorbed (`tidemark up` is what goes on)
    #[arg(long, required = true)]
    until_end: bool,
}

pub async fn run(settings: &Settings, _: &Args) -> Result<ExitCode> {
    let project = settings.project().await?;
    crate::check::warn(&project.warnings);
    let platform = Embedded::open(project, settings.folder())?;
    let started = Instant::now();
    let done = drain(&platform).await?;
    let seconds = started.elapsed().as_secs_f64();
    if settings.json {
        let sources: serde_json::Map<_, _> =
            done.iter().map(|(name, s)| (name.clone(), json!({"events": s.events, "rejected": s.rejected}))).collect();
        println!("{}", json!({"sources": sources, "seconds": seconds}));
        return Ok(ExitCode::SUCCESS);
    }
    for (name, summary) in &done {
        println!("{name}: {} events, {} rejected", count(summary.events), count(summary.rejected));
        if summary.rejected > 0 {
            println!("  the rejected are in {}", platform.folder.offline().join("dead-letters").join(name).display());
        }
    }
    let events = done.iter().map(|(_, s)| s.events).sum();
    println!("{} events in {seconds:.1} s, {} a second", count(events), count(rate(events, seconds)));
    Ok(ExitCode::SUCCESS)
}

/// Drains the platform's sources, and shows on a terminal how far it is.
pub async fn drain(platform: &Embedded) -> Result<Vec<(String, Summary)>> {
    let mut progress = Progress::new();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut done = std::pin::pin!(platform.drain());
    loop {
        tokio::select! {
            done = &mut done => return Ok(done?),
            _ = tick.tick() => {
                let lag = platform.progress.lag();
                if let Some(((source, _), _)) = lag.iter().find(|(_, behind)| **behind > 0) {
                    let behind: i64 = lag.iter().filter(|((s, _), _)| s == source).map(|(_, behind)| behind).sum();
                    progress.show(&format!("{source}: {} events to go", count(behind.unsigned_abs())));
                }
            }
        }
    }
}
