//! `GET /v1/store`: what each view's state takes in the online store.
//!
//! Answer: `{"views": [{"view", "fingerprint", "keys", "bytes", "bytes_per_key", "events", "bytes_per_event"}]}`. Bytes are
//! the store's own count, estimated from a sample of keys where there are many; events are those that the view has
//! absorbed, whatever became of them. It looks at every key, so that it is for people who ask, not for every minute.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::body;
use crate::problem::Problem;

pub const ROUTE: &str = "/v1/store";

#[derive(Serialize)]
struct Used {
    view: String,
    fingerprint: String,
    keys: u64,
    bytes: u64,
    bytes_per_key: f64,
    events: i64,
    bytes_per_event: f64,
}

pub(crate) async fn usage(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let store = &app.platform.store;
    let failed = |e| Problem::from(tidemark_engine::request::ReadError::Store(e));
    let mut views = vec![];
    for (id, usage) in store.usage().await.map_err(failed)? {
        let events: i64 = store.progress(&id).await.map_err(failed)?.values().sum();
        let per = |n: f64| if n > 0.0 { (usage.bytes as f64 / n * 10.0).round() / 10.0 } else { 0.0 };
        views.push(Used {
            keys: usage.keys,
            bytes: usage.bytes,
            bytes_per_key: per(usage.keys as f64),
            events,
            bytes_per_event: per(events as f64),
            view: id.name,
            fingerprint: id.fingerprint,
        });
    }
    body::json(StatusCode::OK, &json!({ "views": views }))
}
