//! What the server counts, and `/metrics`: it and the engine's registry in Prometheus' text format.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::app::App;
use crate::problem::Problem;

/// The server's metrics. They stand in a registry of their own: two servers may share an engine.
#[derive(Debug)]
pub struct HttpMetrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    /// Rows that views answered, by the status of the read.
    pub reads: IntCounterVec,
    /// Events pushed, by outcome: accepted or refused.
    pub pushed: IntCounterVec,
}

impl HttpMetrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let seconds =
            HistogramOpts::new("tidemark_http_request_duration_seconds", "Time to answer a request.").buckets(buckets);
        let new = Self {
            requests: IntCounterVec::new(
                Opts::new("tidemark_http_requests_total", "Requests answered."),
                &["route", "method", "status"],
            )?,
            seconds: HistogramVec::new(seconds, &["route"])?,
            in_flight: IntGauge::new("tidemark_http_requests_in_flight", "Requests being answered.")?,
            reads: IntCounterVec::new(
                Opts::new("tidemark_view_reads_total", "Rows that views answered."),
                &["view", "status"],
            )?,
            pushed: IntCounterVec::new(
                Opts::new("tidemark_source_events_pushed_total", "Events pushed to sources."),
                &["source", "outcome"],
            )?,
            registry,
        };
        new.registry.register(Box::new(new.requests.clone()))?;
        new.registry.register(Box::new(new.seconds.clone()))?;
        new.registry.register(Box::new(new.in_flight.clone()))?;
        new.registry.register(Box::new(new.reads.clone()))?;
        new.registry.register(Box::new(new.pushed.clone()))?;
        Ok(new)
    }

    /// Counts a request from now until it is answered, or given up.
    pub fn start(self: &Arc<Self>, route: String, method: &Method) -> InFlight {
        self.in_flight.inc();
        InFlight { metrics: self.clone(), route, method: label(method), begun: Instant::now(), status: 500 }
    }
}

/// A request being answered.
#[derive(Debug)]
pub struct InFlight {
    metrics: Arc<HttpMetrics>,
    route: String,
    method: &'static str,
    begun: Instant,
    /// Of the answer; a handler that panics leaves 500.
    status: u16,
}

impl InFlight {
    pub fn answered(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let elapsed = self.begun.elapsed();
        self.metrics.in_flight.dec();
        self.metrics.requests.with_label_values(&[self.route.as_str(), self.method, &self.status.to_string()]).inc();
        self.metrics.seconds.with_label_values(&[self.route.as_str()]).observe(elapsed.as_secs_f64());
        tracing::debug!(route = self.route, method = self.method, status = self.status, ?elapsed, "answered");
    }
}

/// A client may invent methods; a label's values must be few.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut families = app.platform.metrics.registry.gather();
    families.extend(app.http.registry.gather());
    let encoder = TextEncoder::new();
    let mut text = vec![];
    encoder.encode(&families, &mut text).map_err(|e| Problem::internal(&e))?;
    let content_type = [(header::CONTENT_TYPE, encoder.format_type().to_owned())];
    Ok((content_type, text).into_response())
}
