//! The same stream into a Redis cluster.

use super::harness::{Shop, Topic, batches, caught_up, owned, random, service};
use crate::crash::events;
use crate::support::Up;

/// Two engines under load write to three servers, and come to what one engine makes of one server.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_holds_what_one_server_holds() {
    let mut random = random();
    let mut topic = Topic::new("cluster").await;
    let shop = Shop::with_redis(&topic, "cluster", &service("REDIS_CLUSTER_URL", "cluster")).and_plain();
    let events = events(&mut random);
    let engines = [shop.engine(0), shop.engine(1)];
    engines[0].wait_until("partitions for each", |_| {
        engines.iter().all(|up| owned(up) > 0) && engines.iter().map(owned).sum::<usize>() == 6
    });
    for batch in batches(&mut random, &events, 200) {
        topic.send(batch).await;
    }
    engines[0].wait_until("the end", |_| {
        let read = |source: &str| {
            let of = |up| Up::metric(up, "tidemark_source_events_total", &format!("source=\"{source}\""));
            engines.iter().map(of).sum::<f64>() as usize
        };
        read("payments") == topic.events() && read("plain") == topic.events() && engines.iter().all(caught_up)
    });
    let (status, store) = engines[0].get("/v1/store");
    assert_eq!(status, 200);
    let user_ever = store["views"].as_array().unwrap().iter().find(|view| view["view"] == "user_ever").unwrap();
    assert_eq!(user_ever["keys"], topic.counts(true).len(), "keys of all servers");
    for engine in engines {
        engine.wait_until("readiness", |up| up.get("/ready").0 == 200);
        assert_eq!(engine.metric("tidemark_stream_retries_total", ""), 0.0, "{}", engine.logged());
        assert_eq!(engine.stop(), Some(0));
    }
    shop.equals_a_calm_run(&topic).await;
}
