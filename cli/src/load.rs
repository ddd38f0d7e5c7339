//! `tidemark backfill --online`: a view's state from history into the online store.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tidemark_engine::online::RedisConfig;
use tidemark_engine::plan::{FeatureView, Project};
use tidemark_engine::platform;
use tidemark_engine::stream::{Done, Folded};
use tidemark_training::view;

use crate::console::{Progress, count, left, print, rate, tell};
use crate::settings::Settings;
use crate::training_set::{Lacking, check_archive};

/// How often to say how far it is: on a terminal and to programs, and in lines that stay.
const TICK: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(10);

pub async fn run(
    settings: &Settings,
    project: &Project,
    name: &str,
    redis: Option<&RedisConfig>,
    memory: Option<usize>,
) -> Result<()> {
    let view = view(project, name)?.clone();
    let folder = settings.folder();
    let load = platform::load(view.clone(), &folder, redis, memory).await;
    let load = load.context("can't load the online store; a `tidemark up` that runs fills its views by itself")?;
    check_archive(&folder, [view.source.clone()], Lacking::IsSaid).await?;
    let (events, failed, started) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let heard = |_: &FeatureView, folded: &Folded| {
        let all: usize = folded.outcomes().iter().map(|(_, n)| n).sum();
        events.fetch_add(all as u64, Ordering::Relaxed);
        failed.fetch_add(folded.failed.len() as u64, Ordering::Relaxed);
    };
    let mut shown = Shown::new(name, settings.json);
    let mut tick = tokio::time::interval(TICK);
    let mut loading = std::pin::pin!(load.run(&heard));
    let loaded = loop {
        tokio::select! {
            loaded = &mut loading => break loaded?,
            _ = tick.tick() => shown.show(load.reached.done()),
        }
    };
    drop(shown);
    let failed = failed.load(Ordering::Relaxed);
    if failed > 0 {
        eprintln!("warning: view {name}: {} events can't be evaluated, and are left out", count(failed));
    }
    let (events, seconds) = (events.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
    if settings.json {
        let offsets: serde_json::Map<_, _> =
            loaded.iter().map(|(partition, (from, to))| (partition.to_string(), json!([from, to]))).collect();
        let said = json!({"event": "loaded", "view": name, "events": events, "seconds": seconds, "offsets": offsets});
        print(&said.to_string())
    } else {
        print(&format!("{name}: {} events into the online store in {seconds:.1} s", count(events)))
    }
}

/// What is seen while a view is loaded: a bar on a terminal, now and then a line elsewhere, events for programs.
struct Shown<'a> {
    view: &'a str,
    json: bool,
    line: Progress,
    since: Instant,
    /// When a line was written.
    said: Instant,
}

impl<'a> Shown<'a> {
    fn new(view: &'a str, json: bool) -> Self {
        let now = Instant::now();
        Self { view, json, line: Progress::new(), since: now, said: now }
    }

    fn show(&mut self, Done { all, read, folded }: Done) {
        let seconds = self.since.elapsed().as_secs_f64();
        if self.json {
            let said = json!({"event": "loading", "view": self.view, "events": all, "read": read, "folded": folded, "seconds": seconds});
            return tell(&said.to_string());
        }
        // To read an event and to fold it are about as much work.
        let part = (read + folded) as f64 / (2 * all).max(1) as f64;
        let [of, a_second] = [count(all), count(rate((read + folded) / 2, seconds))];
        let text = format!(
            "{}: {} of {of} events read, {} in the online store, {a_second}/s{}",
            self.view,
            count(read),
            count(folded),
            left(part, seconds)
        );
        if !stderr().is_terminal() && self.said.elapsed() >= LINE {
            self.said = Instant::now();
            eprintln!("{text}");
        }
        self.line.bar(part, &text);
    }
}
