//! `/health`: the process is alive. `/ready`: its answers can be trusted.
//!
//! Ready means: no view fills, no source's worker is stalled, and every source has worked off what it found when the
//! process started (it has since then once been within [`Config::caught_up_within`](crate::Config) events of its end).
//! Lag that builds up later makes nothing unready: the answers are late then, which `/metrics` shows, not wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::body;
use crate::problem::Problem;

/// Sources that have caught up since the start.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    caught_up: Mutex<BTreeSet<String>>,
}

/// Why the platform is not ready.
#[derive(Debug, Serialize)]
struct Reason {
    /// `filling`, `starting`, `not_loaded`, `stalled` or `catching_up`.
    kind: &'static str,
    /// The view or source that it is about.
    name: String,
    detail: String,
}

pub(crate) async fn health() -> Result<Response, Problem> {
    body::json(StatusCode::OK, &json!({"status": "ok"}))
}

pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let lag = lag(&app);
    let reasons: Vec<Reason> =
        views(&app).into_iter().chain(stalled(&app)).chain(app.readiness.catching_up(&app, &lag)).collect();
    match reasons.first() {
        None => body::json(StatusCode::OK, &json!({"status": "ready", "lag": lag})),
        Some(first) => {
            let detail = match reasons.len() {
                1 => first.detail.clone(),
                n => format!("{} (and {} more reasons)", first.detail, n - 1),
            };
            let problem = Problem::unavailable("not-ready", "Not ready", detail);
            Err(problem.with("reasons", json!(reasons)).with("lag", json!(lag)))
        }
    }
}

/// Events behind, by source.
fn lag(app: &App) -> BTreeMap<String, i64> {
    let mut lag = BTreeMap::new();
    for ((source, _), events) in app.platform.progress.lag() {
        *lag.entry(source).or_insert(0) += events;
    }
    lag
}

fn views(app: &App) -> Vec<Reason> {
    let progress = &app.platform.progress;
    let filling = progress.filling();
    let views = app.platform.project.views.values();
    let reason = |kind, view: &str, detail: String| Some(Reason { kind, name: view.to_owned(), detail });
    views
        // Its version before answers meanwhile.
        .filter(|view| app.platform.view(&view.name).is_none_or(|answers| answers.fingerprint == view.fingerprint))
        .filter_map(|view| match filling.get(&view.id()) {
            Some(events) => {
                let stuck =
                    progress.stuck(&view.source.name).map(|why| format!("; tried again, since it fails: {why}"));
                let detail = format!("view {} is filling: {events} events to go", view.name);
                reason("filling", &view.name, detail + &stuck.unwrap_or_default())
            }
            None if view.fingerprint.is_empty() => {
                let detail =
                    format!("view {} can't run: the files of a dimension table that it joins are missing", view.name);
                reason("not_loaded", &view.name, detail)
            }
            None if !progress.filled(&view.id()) => reason(
                "starting",
                &view.name,
                format!("view {} has not started yet: its source {} is being opened", view.name, view.source.name),
            ),
            None => None,
        })
        .collect()
}

fn stalled(app: &App) -> Vec<Reason> {
    let stalled = app.platform.progress.stalled();
    stalled
        .into_iter()
        .map(|(source, why)| Reason {
            kind: "stalled",
            detail: format!("source {source} is stalled and tries again: {why}"),
            name: source,
        })
        .collect()
}

impl Readiness {
    /// Sources that still work off what was there at the start.
    fn catching_up(&self, app: &App, lag: &BTreeMap<String, i64>) -> Vec<Reason> {
        let mut caught_up = self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons = vec![];
        for source in app.platform.project.sources.values() {
            if caught_up.contains(&source.name) {
                continue;
            }
            let unread = !app.platform.progress.began(&source.name);
            let behind = lag.get(&source.name).copied().unwrap_or(0);
            let detail = match (unread, behind > app.config.caught_up_within) {
                (true, _) => format!("source {} is being opened", source.name),
                (false, true) => format!("source {} is {behind} events behind", source.name),
                (false, false) => {
                    // Without a worker nothing is known of it; its views say so.
                    if app.platform.project.views_of(&source.name).iter().all(|view| {
                        let answers = app.platform.view(&view.name);
                        answers.is_some_and(|view| app.platform.progress.filled(&view.id()))
                    }) {
                        caught_up.insert(source.name.clone());
                    }
                    continue;
                }
            };
            reasons.push(Reason { kind: "catching_up", name: source.name.clone(), detail });
        }
        reasons
    }
}
