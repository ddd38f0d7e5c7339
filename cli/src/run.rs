//! A platform as a process: its workers and its REST server, until it is stopped.
//!
//! It ends in three ways: on ctrl-c or SIGTERM everything absorbed is committed and it ends well; when a worker or the
//! server dies it says why, and ends badly; when it is killed, the next start goes on as if nothing had happened.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use tidemark_engine::platform::{Platform, PlatformError};
use tidemark_engine::stream::Summary;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::console::count;
use crate::generate::live;
use crate::settings::Settings;

/// How long requests in flight may take when the platform stops.
const GRACE: Duration = Duration::from_secs(10);

/// How the workers of a platform that runs on work.
#[derive(Debug, clap::Args)]
pub struct Workers {
    /// Seconds between commits: how much a restart after a crash does again
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    commit_every: Duration,
    /// Seconds to keep the state of what was served before, once changed views have their history: other instances may still serve it
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    keep_previous: Duration,
}

impl Workers {
    pub fn configure(&self, platform: &mut Platform) {
        platform.config.commit_every = self.commit_every;
        platform.config.retire_after = self.keep_previous;
    }
}

/// Takes the address before anything slow or lasting is done.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}; hint: is another program there? choose another address with --listen")
    })
}

/// Runs the platform, with live traffic if there is some.
pub async fn run(
    settings: &Settings,
    platform: Platform,
    listener: TcpListener,
    traffic: Option<live::Traffic>,
) -> Result<ExitCode> {
    let address = listener.local_addr()?;
    let platform = Arc::new(platform);
    let (stop, stopped) = watch::channel(false);
    let mut parts = JoinSet::new();
    for (name, worker) in platform.start(&stopped) {
        parts.spawn_blocking(move || worker_ended(&name, worker));
    }
    let (settling, stop_settling) = (platform.clone(), stopped.clone());
    tokio::spawn(async move { settling.settle(stop_settling).await });
    let router = tidemark_serving::router(platform.clone(), tidemark_serving::Config::default())
        .context("metrics of the REST server")?;
    let server = tidemark_serving::serve(listener, router, told(stopped.clone()), GRACE);
    parts.spawn(async move {
        server.await.context("the REST server failed")?;
        Ok("the REST server")
    });
    if let Some(traffic) = traffic {
        let (platform, mut stopped) = (platform.clone(), stopped.clone());
        parts.spawn(async move {
            tokio::select! {
                made = traffic.run(&platform.intake) => made.map(|_| "the generator"),
                _ = stopped.wait_for(|stop| *stop) => Ok("the generator"),
            }
        });
    }
    announce(settings, &platform, address);

    let mut failure = None;
    tokio::select! {
        signal = signal() => tracing::info!("{} received, stopping", signal?),
        Some(ended) = parts.join_next() => failure = Some(reason(ended)),
    }
    stop.send_replace(true);
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = flatten(ended) {
            failure.get_or_insert(error);
        }
    }
    match failure {
        None => {
            tracing::info!("stopped; everything absorbed is committed");
            Ok(ExitCode::SUCCESS)
        }
        Some(error) => Err(error),
    }
}

type Ended = Result<Result<&'static str>, tokio::task::JoinError>;

fn flatten(ended: Ended) -> Result<&'static str> {
    ended.map_err(|e| anyhow!("a part of the platform ended abnormally: {e}"))?
}

/// Why the platform can't go on after one of its parts ended unasked.
fn reason(ended: Ended) -> anyhow::Error {
    match flatten(ended) {
        Ok(part) => anyhow!("{part} ended although nobody stopped it"),
        Err(error) => error,
    }
}

fn worker_ended(name: &str, worker: JoinHandle<Result<Summary, PlatformError>>) -> Result<&'static str> {
    let summary = worker
        .join()
        .map_err(|_| PlatformError::Worker(name.to_owned()))?
        .with_context(|| format!("the worker of source {name} died"))?;
    tracing::info!("source {name}: {} events absorbed, {} rejected", count(summary.events), count(summary.rejected));
    Ok("a worker")
}

async fn told(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits for ctrl-c or, on Unix, SIGTERM.
async fn signal() -> Result<&'static str> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done?,
            _ = terminate.recv() => return Ok("SIGTERM"),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok("ctrl-c")
}

/// Says what is served, and where.
fn announce(settings: &Settings, platform: &Platform, address: SocketAddr) {
    let project = &platform.project;
    let url = format!("http://{address}");
    if settings.json {
        println!(
            "{}",
            json!({"url": url, "data": settings.data, "services": project.services.keys().collect::<Vec<_>>()})
        );
        return;
    }
    let names = |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    println!("Tidemark serves {url}, data in {}", settings.data.display());
    println!("  sources   {}", names(project.sources.keys().collect()));
    println!("  views     {}", names(project.views.keys().collect()));
    for service in project.services.values() {
        let fields: Vec<&str> = service.signature.fields().iter().map(|f| f.name().as_str()).collect();
        println!("  service   {} ({})", service.name, fields.join(", "));
    }
    println!("Read with `tidemark get NAME key=value …`, look with `tidemark status`, stop with ctrl-c.");
}

/// Reads a length of time from the command line.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    number.ok_or_else(|| "expected a number of seconds, such as 10 or 0.5".to_owned())
}

/// Reads an instant, or a date for its midnight, from the command line: microseconds UTC.
pub fn instant(text: &str) -> Result<i64, String> {
    let midnight = || text.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0).map(|at| at.and_utc());
    let at = chrono::DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).ok().or_else(midnight);
    at.map(|at| at.timestamp_micros())
        .ok_or_else(|| "expected an instant such as 2026-01-31T12:00:00Z, or a date".into())
}

/// Reads a number of bytes from the command line.
pub fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let (number, unit) =
        UNITS.iter().find_map(|(unit, bytes)| Some((upper.strip_suffix(unit)?, *bytes))).unwrap_or((upper.as_str(), 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "expected bytes, such as 512MB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!(
            ["1", "2 kB", "3MiB", "1GB", "7b"].map(|text| bytes(text).unwrap()),
            [1, 2000, 3 << 20, 1_000_000_000, 7]
        );
        for wrong in ["", "MB", "-1", "1.5GB", "99999999999GB", "1 TB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
