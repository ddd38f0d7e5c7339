//! What the engine counts, by Prometheus' conventions.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The engine's metrics, registered once per process.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub registry: Registry,
    /// Events read from a source.
    pub events: IntCounterVec,
    /// Events that a source could not give: undecodable, no event time, too far in the future.
    pub rejected: IntCounterVec,
    /// What became of an event in a view: folded, late, duplicate, replayed, null_key, failed.
    pub view_events: IntCounterVec,
    /// Events behind the end of a source's partition; about how many, if it is files.
    pub lag: IntGaugeVec,
    /// 1 while a view fills from history and can't be read.
    pub filling: IntGaugeVec,
    /// Offset after the last event that is durable online and in the archive.
    pub committed: IntGaugeVec,
    /// Times that a batch had to be tried again, by cause.
    pub retries: IntCounterVec,
    /// 1 while a source's worker waits for something to come back, by cause.
    pub stalled: IntGaugeVec,
    /// Times that partitions of a source were given to this instance or taken from it.
    pub rebalances: IntCounterVec,
    /// Events that a source had dropped before they were read: Kafka's retention was shorter than an outage.
    pub lost: IntCounterVec,
    /// What a view's cache takes of the memory limit.
    pub cache: IntGaugeVec,
    pub batch_seconds: Histogram,
    pub commit_seconds: Histogram,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = |name: &str, help: &str| -> Result<Histogram, prometheus::Error> {
            let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            events: counter("tidemark_source_events_total", "Events read from a source.", &["source"])?,
            rejected: counter(
                "tidemark_source_events_rejected_total",
                "Events dead-lettered by a source.",
                &["source"],
            )?,
            view_events: counter(
                "tidemark_view_events_total",
                "What became of events in a feature view.",
                &["view", "outcome"],
            )?,
            lag: gauge(
                "tidemark_source_lag_events",
                "Events behind the end of a partition.",
                &["source", "partition"],
            )?,
            filling: gauge("tidemark_view_filling", "1 while a view fills from history.", &["view"])?,
            committed: gauge(
                "tidemark_source_committed_offset",
                "Offset after the last durable event.",
                &["source", "partition"],
            )?,
            retries: counter("tidemark_stream_retries_total", "Batches tried again.", &["source", "cause"])?,
            stalled: gauge(
                "tidemark_stream_stalled",
                "1 while the stream waits for its source, store or archive.",
                &["source", "cause"],
            )?,
            rebalances: counter(
                "tidemark_source_rebalances_total",
                "Times that partitions came or went.",
                &["source"],
            )?,
            lost: counter(
                "tidemark_source_events_lost_total",
                "Events that Kafka's retention took before they were read.",
                &["source"],
            )?,
            cache: gauge(
                "tidemark_view_cache_bytes",
                "Memory of a view's cache, of which the limit allows half.",
                &["view"],
            )?,
            batch_seconds: seconds("tidemark_stream_batch_seconds", "Time to fold one batch into every view.")?,
            commit_seconds: seconds("tidemark_stream_commit_seconds", "Time to make a stretch of events durable.")?,
            registry,
        })
    }
}
