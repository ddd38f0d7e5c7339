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

/// A version of a view that is dropped page by page, and taken up by somebody meanwhile: what that one writes stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_up_while_it_is_dropped_stays() {
    const KEYS: usize = 30_000;
    let config = RedisConfig { url: url("REDIS_URL", "redis"), project: project("taken-up"), keep_idle: true };
    let (dropping, taking) = (RedisStore::open(&config).await.unwrap(), RedisStore::open(&config).await.unwrap());
    let view = ViewId { name: "v".into(), fingerprint: "f".into() };
    let put = |i: usize| PieceWrite {
        key: EntityKey::from(i.to_string()),
        partition: 0,
        expected: None,
        absorbed: 1,
        head: "head".into(),
        chunks: vec![],
        removed: vec![],
        whole: false,
        idle_after: None,
    };
    let session = taking.session().await.unwrap();
    taking.write(session, &view, (0..KEYS).map(put).collect()).await.unwrap();
    let (of_it, dropped) = (view.clone(), tokio::spawn(async move { dropping.drop_view(&view).await }));
    let view = of_it;
    // As soon as the first page is gone.
    let some: Vec<EntityKey> = (0..100).map(|i| EntityKey::from((i * KEYS / 100).to_string())).collect();
    while taking.read(&view, &some).await.unwrap().iter().all(|pieces| !pieces.is_empty()) {}
    taking.set_progress(session, &view, 0, None, 5).await.unwrap();
    let dropped = dropped.await.unwrap();
    assert!(matches!(dropped, Err(StoreError::TakenUp { .. })), "{dropped:?}");
    assert!(!taking.keys(&view, None, 1).await.unwrap().is_empty(), "everything is gone");
    assert!(taking.views().await.unwrap().contains(&view));
    let after =
        taking.write(session, &view, vec![PieceWrite { key: EntityKey::from("new".to_owned()), ..put(0) }]).await;
    assert_eq!(after.unwrap(), [WriteOutcome::Written]);
    // Whoever is alone drops it.
    taking.drop_view(&view).await.unwrap();
    assert!(taking.keys(&view, None, 1).await.unwrap().is_empty() && taking.views().await.unwrap().is_empty());
}
