//! The application: its routes, its limits, and what stands around every request.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use tidemark_engine::plan::{FeatureService, FeatureView};
use tidemark_engine::platform::Platform;
use tidemark_engine::request::Reader;
use tidemark_engine::sql::nearest;

use crate::health::Readiness;
use crate::metrics::{HttpMetrics, metrics};
use crate::problem::Problem;
use crate::{catalog, events, health, services, store, views};

/// A server's limits, and its clock.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Rows or keys of one read.
    pub max_rows: usize,
    /// Events of one push.
    pub max_events: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// A source has worked off what it found at the start once it is this few events behind.
    pub caught_up_within: i64,
    /// Now, in microseconds since 1970, UTC.
    pub clock: fn() -> i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body: 8 << 20,
            max_rows: 1000,
            max_events: 10_000,
            timeout: Duration::from_secs(30),
            caught_up_within: 1000,
            clock: system_clock,
        }
    }
}

fn system_clock() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// What handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub platform: Arc<Platform>,
    pub reader: Reader,
    pub config: Config,
    pub http: Arc<HttpMetrics>,
    pub readiness: Readiness,
}

const ROUTES: [&str; 10] = [
    services::ROUTE,
    views::ROUTE,
    events::ROUTE,
    catalog::ROUTE,
    catalog::KIND_ROUTE,
    catalog::NAME_ROUTE,
    store::ROUTE,
    "/health",
    "/ready",
    "/metrics",
];

/// The routes over a platform. An error means that the metrics could not be registered.
pub fn router(platform: Arc<Platform>, config: Config) -> Result<Router, prometheus::Error> {
    let max_body = config.max_body;
    let app = Arc::new(App {
        reader: platform.reader(),
        platform,
        config,
        http: Arc::new(HttpMetrics::new()?),
        readiness: Readiness::default(),
    });
    Ok(Router::new()
        .route(services::ROUTE, post(services::read))
        .route(views::ROUTE, get(views::read_one).post(views::read_many))
        .route(events::ROUTE, post(events::push))
        .route(catalog::ROUTE, get(catalog::all))
        .route(catalog::KIND_ROUTE, get(catalog::kind))
        .route(catalog::NAME_ROUTE, get(catalog::name))
        .route(store::ROUTE, get(store::usage))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::method_not_allowed(method.as_str(), uri.path())
        })
        .fallback(async |uri: Uri| Problem::no_route(uri.path(), nearest_route(uri.path())))
        .layer(DefaultBodyLimit::max(max_body))
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app))
}

/// Around every request: a time limit, metrics, and a wall against panics.
///
/// The request runs in a task of its own, so that a client who hangs up does not leave a push half done.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let flight = app.http.start(route, request.method());
    let limit = app.config.timeout;
    let run = async move {
        let response = match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::timed_out(limit.as_secs_f64()).into_response(),
        };
        flight.answered(response.status());
        response
    };
    match tokio::spawn(run).await {
        Ok(response) => response,
        Err(panicked) => Problem::internal(&panicked).into_response(),
    }
}

impl App {
    pub fn service(&self, name: &str) -> Result<&Arc<FeatureService>, Problem> {
        let services = &self.platform.project.services;
        self.platform.service(name).ok_or_else(|| Problem::unknown("feature service", name, services.keys()))
    }

    pub fn view(&self, name: &str) -> Result<&Arc<FeatureView>, Problem> {
        let views = &self.platform.project.views;
        self.platform.view(name).ok_or_else(|| Problem::unknown("feature view", name, views.keys()))
    }

    pub fn now(&self) -> i64 {
        (self.config.clock)()
    }

    /// Refuses a read of a view that does not have all of its history: its values would be wrong.
    pub fn filled(&self, view: &FeatureView) -> Result<(), Problem> {
        let progress = &self.platform.progress;
        if progress.filled(&view.id()) || view.fingerprint.is_empty() {
            // Without its tables it never fills; the reader says so better.
            return Ok(());
        }
        let what = match progress.filling().get(&view.id()) {
            Some(events) => format!("view {} is filling: {events} events to go", view.name),
            None => format!("view {} has not started yet: its source {} is being opened", view.name, view.source.name),
        };
        Err(Problem::unavailable("filling", "View is not filled yet", what))
    }
}

/// The route that a path was probably meant for.
fn nearest_route(path: &str) -> Option<String> {
    let given: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let candidates: Vec<String> = ROUTES
        .iter()
        .filter(|route| route.split('/').count() == given.len())
        .map(|route| {
            let parts = route.split('/').zip(&given);
            parts.map(|(part, given)| if part.starts_with('{') { *given } else { part }).collect::<Vec<_>>().join("/")
        })
        .collect();
    nearest(path, candidates.iter().map(String::as_str)).map(str::to_owned)
}

/// The names in a path, decoded.
pub(crate) struct Names<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let names: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        names
            .map(|Path(names)| Self(names))
            .map_err(|e| Problem::malformed(format!("path {}: {}", parts.uri.path(), e.body_text())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_route_keeps_the_names_of_the_path() {
        assert_eq!(nearest_route("/v1/service/fraud_v1").unwrap(), "/v1/services/fraud_v1");
        assert_eq!(nearest_route("/v1/source/clicks/event").unwrap(), "/v1/sources/clicks/events");
        assert_eq!(nearest_route("/healthz").unwrap(), "/health");
        assert_eq!(nearest_route("/v1/catalogue").unwrap(), "/v1/catalog");
        assert_eq!(nearest_route("/favicon.ico"), None);
    }
}
