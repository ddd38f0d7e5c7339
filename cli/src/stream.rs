//! `tidemark stream`: events from Kafka into Redis and the archive. As many instances as one likes share the work.
//!
//! Without Kafka, `--until-end` drains the embedded log of `--data`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tidemark_engine::platform::{Platform, Services};
use tidemark_engine::stream::Summary;

use crate::console::{Progress, count, rate};
use crate::run;
use crate::services::Connections;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connections: Connections,
    /// End when everything that the sources hold now is absorbed
    #[arg(long)]
    pub until_end: bool,
    /// Address to serve REST, /ready and /metrics on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "TIDEMARK_LISTEN")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    workers: run::Workers,
    /// What timelines, waiting events and batches may take of memory, such as 512MB or 2GB; what the clients of Kafka and Redis
    /// hold, and the allocator, come on top
    #[arg(long, value_name = "BYTES", env = "TIDEMARK_MEMORY_LIMIT", default_value = "512MB", value_parser = run::bytes)]
    memory_limit: usize,
}

pub async fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let project = settings.open_project().await?;
    let services = match args.connections.has_kafka(settings) {
        true => args.connections.production(settings)?,
        false if args.until_end => Services::default(),
        false => bail!(
            "Kafka is not known; expected --kafka-brokers, KAFKA_BROKERS, or [kafka] brokers in tidemark.toml; \
             hint: `tidemark up` streams without Kafka, from an embedded log"
        ),
    };
    let listener = match args.until_end {
        true => None,
        false => Some(run::listen(settings.listen(args.listen)).await?),
    };
    crate::check::log(&project.warnings);
    let mut platform = Platform::open(project, settings.folder(), services).await?;
    args.workers.configure(&mut platform);
    platform.limit_memory(args.memory_limit);
    match listener {
        Some(listener) => {
            platform.resume().await?;
            run::run(settings, platform, listener, None).await
        }
        None => until_end(settings, &platform).await,
    }
}

async fn until_end(settings: &Settings, platform: &Platform) -> Result<ExitCode> {
    let started = Instant::now();
    let done = drain(platform).await?;
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
            println!("  `tidemark dead-letters list {name}` shows the rejected");
        }
    }
    let events = done.iter().map(|(_, s)| s.events).sum();
    println!("{} events in {seconds:.1} s, {} a second", count(events), count(rate(events, seconds)));
    Ok(ExitCode::SUCCESS)
}

/// Drains the platform's sources, and shows on a terminal how far it is.
pub async fn drain(platform: &Platform) -> Result<Vec<(String, Summary)>> {
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
