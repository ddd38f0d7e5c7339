//! `POST /v1/sources/{source}/events`: events in.
//!
//! Request: `{"events": [{…}, …]}`, or one event a line under `application/x-ndjson`. Each event is accepted or refused by
//! itself, by the source's contract; one that is accepted is durable before the answer.
//!
//! Answer: `{"source", "accepted": n, "refused": [{"index": i, "reason": "…"}]}`, with the index from 0 among the events
//! that were sent. Status 200 if all were accepted, 207 if some were, and if none was, a problem with status 422 that has
//! the same members. Another 4xx has accepted nothing. A 5xx or a lost connection leaves that open: send the events
//! again, which is harmless where the source names an `event_id`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::app::{App, Names};
use crate::body;
use crate::problem::Problem;

pub const ROUTE: &str = "/v1/sources/{source}/events";
const NDJSON: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

#[derive(Serialize)]
struct Answer<'a> {
    source: &'a str,
    accepted: usize,
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    index: usize,
    reason: String,
}

pub(crate) async fn push(
    State(app): State<Arc<App>>,
    Names(name): Names<String>,
    request: Request,
) -> Result<Response, Problem> {
    let sources = &app.platform.project.sources;
    let source = sources.get(&name).ok_or_else(|| Problem::unknown("source", &name, sources.keys()))?;
    let (events, mut refused) = events(&app, request).await?;
    let (places, records): (Vec<usize>, Vec<Json>) = events.into_iter().unzip();
    let pushed = app.platform.intake.push(&source.name, &records, app.now()).await?;
    let mut accepted = 0;
    for (index, outcome) in places.into_iter().zip(pushed) {
        match outcome {
            Ok(_) => accepted += 1,
            Err(reason) => refused.push(Refused { index, reason }),
        }
    }
    refused.sort_by_key(|r| r.index);
    let count =
        |outcome: &str, n: usize| app.http.pushed.with_label_values(&[source.name.as_str(), outcome]).inc_by(n as u64);
    count("accepted", accepted);
    count("refused", refused.len());
    let status = match (accepted, refused.first()) {
        (_, None) => StatusCode::OK,
        (0, Some(first)) => {
            let detail = format!("no event was accepted; event {}: {}", first.index, first.reason);
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", "Events refused", detail);
            return Err(problem
                .with("source", json!(source.name))
                .with("accepted", json!(0))
                .with("refused", json!(refused)));
        }
        _ => StatusCode::MULTI_STATUS,
    };
    body::json(status, &Answer { source: &source.name, accepted, refused })
}

type Events = (Vec<(usize, Json)>, Vec<Refused>);

/// The events of a request with their places, and the lines that are none.
async fn events(app: &App, request: Request) -> Result<Events, Problem> {
    let media_type = body::media_type(request.headers());
    let limit = app.config.max_events;
    match media_type.as_deref() {
        Some(lines) if NDJSON.contains(&lines) => ndjson(&body::bytes(app, request).await?, limit),
        other if body::is_json(other) => {
            let events = body::parse(&body::bytes(app, request).await?, &["events"])?.array("events", limit)?;
            Ok((events.into_iter().enumerate().collect(), vec![]))
        }
        other => Err(Problem::media_type(other.unwrap_or_default(), "application/json or application/x-ndjson")),
    }
}

/// One event a line; empty lines are none.
fn ndjson(bytes: &[u8], limit: usize) -> Result<Events, Problem> {
    let lines = bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let (mut events, mut refused) = (vec![], vec![]);
    for (index, (number, line)) in lines.enumerate() {
        match serde_json::from_slice(line) {
            Ok(event) => events.push((index, event)),
            Err(e) => {
                let reason = format!("line {}, column {}: not JSON: {}", number + 1, e.column(), body::cause(&e));
                refused.push(Refused { index, reason });
            }
        }
    }
    body::within(events.len() + refused.len(), "events", limit)?;
    Ok((events, refused))
}
