//! `tidemark status`: how a running platform is, on a page.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value as Json, json};

use crate::client::{Client, samples};
use crate::console::{count, print};
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The platform [default: where `tidemark up` listens]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Ends with 1 while the platform isn't ready.
pub fn run(settings: &Settings, args: &Args) -> Result<ExitCode> {
    let client = Client::new(&crate::get::url(settings, args.url.as_deref()));
    let ready = client.get("/ready", &[])?;
    let reasons: Json = serde_json::from_str(&ready.text).unwrap_or_default();
    let catalog = client.get("/v1/catalog", &[])?.json()?;
    let metrics = client.get("/metrics", &[])?.text;
    let store = client.get("/v1/store", &[])?.json()?;
    let sources = sources(&metrics);
    if settings.json {
        let sources: Vec<Json> = sources
            .iter()
            .map(|s| json!({"name": s.name, "events": s.events, "rejected": s.rejected, "lag": s.lag}))
            .collect();
        let all = json!({"url": client.base(), "ready": ready.ok(), "readiness": reasons, "sources": sources, "store": store, "catalog": catalog});
        print(&all.to_string())?;
    } else {
        print(&page(client.base(), (!ready.ok()).then_some(&reasons), &sources, &metrics, &store, &catalog))?;
    }
    Ok(if ready.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For a person; `reasons` why the platform is not ready, if it is not.
fn page(url: &str, reasons: Option<&Json>, sources: &[Source], metrics: &str, store: &Json, catalog: &Json) -> String {
    let mut lines = vec![match reasons {
        None => format!("{url} is ready"),
        Some(reasons) => format!("{url} is not ready\n  {reasons}"),
    }];
    lines.push(format!("\n{:22} {:>12} {:>10} {:>10}", "sources", "events", "rejected", "behind"));
    for source in sources {
        lines.push(format!(
            "  {:20} {:>12} {:>10} {:>10}",
            source.name,
            count(source.events),
            count(source.rejected),
            count(source.lag)
        ));
    }
    lines.push(format!("\n{:22} {:>12} {:>10} {:>10}", "views", "folded", "late", "duplicate"));
    let outcomes = samples(metrics, "tidemark_view_events_total");
    for view in samples(metrics, "tidemark_view_filling") {
        let name = view.label("view");
        let of = |outcome: &str| {
            let matching = outcomes.iter().filter(|s| s.label("view") == name && s.label("outcome") == outcome);
            count(matching.map(|s| s.value as u64).sum())
        };
        let note = if view.value > 0.0 { "  filling" } else { "" };
        lines.push(format!("  {name:20} {:>12} {:>10} {:>10}{note}", of("folded"), of("late"), of("duplicate")));
    }
    lines.push(format!("\n{:22} {:>12} {:>10} {:>10} {:>12}", "state", "keys", "kB", "bytes/key", "bytes/event"));
    for view in store.get("views").and_then(Json::as_array).into_iter().flatten() {
        let number = |key: &str| view.get(key).and_then(Json::as_f64).unwrap_or_default();
        let name = view.get("view").and_then(Json::as_str).unwrap_or_default();
        let (keys, kilobytes) = (count(number("keys") as u64), count((number("bytes") / 1000.0) as u64));
        let (per_key, per_event) = (number("bytes_per_key"), number("bytes_per_event"));
        lines.push(format!("  {name:20} {keys:>12} {kilobytes:>10} {per_key:>10.0} {per_event:>12.1}"));
    }
    lines.push("\nservices".into());
    for service in catalog.get("services").and_then(Json::as_array).into_iter().flatten() {
        let text = |key: &str| service.get(key).and_then(Json::as_str).unwrap_or_default();
        let description = text("description").lines().next().unwrap_or_default();
        lines.push(format!("  {:20} {description}", text("name")));
    }
    lines.push("\nCounts are since the platform's start.".into());
    lines.join("\n")
}

struct Source {
    name: String,
    events: u64,
    rejected: u64,
    lag: u64,
}

/// One for each source that has a worker, from the metrics.
fn sources(metrics: &str) -> Vec<Source> {
    let sum = |metric: &str, name: &str| {
        samples(metrics, metric).iter().filter(|s| s.label("source") == name).map(|s| s.value.max(0.0) as u64).sum()
    };
    let mut names: Vec<String> = ["tidemark_source_lag_events", "tidemark_source_events_total"]
        .iter()
        .flat_map(|metric| samples(metrics, metric))
        .map(|s| s.label("source").to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| Source {
            events: sum("tidemark_source_events_total", &name),
            rejected: sum("tidemark_source_events_rejected_total", &name),
            lag: sum("tidemark_source_lag_events", &name),
            name,
        })
        .collect()
}
