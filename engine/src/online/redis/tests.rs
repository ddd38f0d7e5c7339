//! Against real servers: `REDIS_URL` and `REDIS_CLUSTER_URL` say where, `infra/services start redis cluster` starts them.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::conformance;
use super::session::nonce;
use super::*;

/// Where a service is; a test that lacks it fails, and says so.
fn url(variable: &str, service: &str) -> String {
    match std::env::var(variable) {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("{variable} is not set; hint: infra/services start {service}, eval \"$(infra/services env)\""),
    }
}

/// A project of this run of this test: what others left is not seen.
fn project(name: &str) -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    format!("test-{name}-{}-{}", nonce(), RUNS.fetch_add(1, Ordering::Relaxed))
}

async fn conforms(url: String, name: &str) {
    let project = project(name);
    let open = |store: &str| {
        let config = RedisConfig { url: url.clone(), project: format!("{project}-{store}"), keep_idle: false };
        async move { RedisStore::open(&config).await }
    };
    conformance::run(open).await.unwrap();
}

#[tokio::test]
async fn one_server_conforms() {
    conforms(url("REDIS_URL", "redis"), "one").await;
}

#[tokio::test]
async fn a_cluster_conforms() {
    conforms(url("REDIS_CLUSTER_URL", "cluster"), "cluster").await;
}
