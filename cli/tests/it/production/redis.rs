//! Redis goes away, is emptied, is full.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array};
use tidemark_engine::kernel::EntityKey;
use tidemark_engine::online::{OnlineStore, PieceWrite, RedisConfig, RedisStore, StoreError, ViewId, WriteOutcome};
use tidemark_engine::request::{ReadStatus, Reader};

use super::harness::{PARTITIONS, Proxy, Redis, Shop, Topic, batches, free_port, random, says_stalled};
use crate::crash::{SPAN, START, events};
use crate::support::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_comes_back_with_its_append_only_file() {
    let mut random = random();
    let mut redis = Redis::start();
    let mut topic = Topic::new("redis-killed").await;
    let shop = Shop::with_redis(&topic, "redis-killed", &redis.url()).and_plain();
    let events = events(&mut random);
    let up = shop.engine(0);
    for share in events.chunks(events.len() / 4) {
        let (first, second) = share.split_at(share.len() / 2);
        topic.send(first).await;
        up.wait_until("partitions", |up| shop.owned_by(up));
        redis.kill();
        topic.send(second).await;
        up.wait_until("words on what it waits for", |up| says_stalled(up, "online store"));
        redis.start_again();
        up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    }
    assert!(up.metric("tidemark_stream_retries_total", "") > 0.0);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
}

/// The server behind the address is made a replica, and another one takes its place: the engine asks who is the master now.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_behind_the_address() {
    let (first, second) = (Redis::start(), Redis::start());
    let address = Proxy::start(first.port);
    let mut topic = Topic::new("redis-failover").await;
    let shop = Shop::with_redis(&topic, "redis-failover", &address.url());
    let events = events(&mut random());
    let (before, after) = events.split_at(events.len() / 2);
    let up = shop.engine(0);
    topic.send(before).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    let replicate = |replica: &Redis, of: &Redis| replica.run(&["REPLICAOF", "127.0.0.1", &of.port.to_string()]);
    assert_eq!(replicate(&second, &first), "OK");
    up.wait_until("the replica", |_| second.run(&["DBSIZE"]) == first.run(&["DBSIZE"]));
    assert_eq!(second.run(&["REPLICAOF", "NO", "ONE"]), "OK");
    address.lead_to(second.port);
    assert_eq!(replicate(&first, &second), "OK");
    topic.send(after).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
}

/// What Redis lost between its last write to disk and its end is read from the source again.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_last_writes_gets_them_again() {
    let mut random = random();
    let mut redis = Redis::start();
    let mut topic = Topic::new("redis-lost").await;
    let shop = Shop::with_redis(&topic, "redis-lost", &redis.url()).and_plain();
    let events = events(&mut random);
    let up = shop.engine(0);
    let mut shares = events.chunks(events.len() / 3);
    topic.send(shares.next().unwrap()).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    // From here on nothing reaches its disk.
    assert_eq!(redis.run(&["CONFIG", "SET", "appendonly", "no"]), "OK");
    let saved = redis.folder.path().join("appendonlydir");
    let copy = redis.folder.path().join("copy");
    Command::new("cp").arg("-r").arg(&saved).arg(&copy).status().unwrap();
    topic.send(shares.next().unwrap()).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    redis.kill();
    std::fs::remove_dir_all(&saved).unwrap();
    std::fs::rename(&copy, &saved).unwrap();
    redis.start_again();
    for share in shares {
        topic.send(share).await;
    }
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
}

/// In a session that has ended a store takes what it can't have lost anything of, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_only_whole_pieces_are_taken() {
    let mut redis = Redis::start();
    let config = RedisConfig { url: redis.url(), project: "loss".into(), ..RedisConfig::default() };
    let store = RedisStore::open(&config).await.unwrap();
    let view = ViewId { name: "v".into(), fingerprint: "f".into() };
    let put = |key: &str, expected: Option<i64>, whole: bool| PieceWrite {
        key: EntityKey::from(key.to_owned()),
        partition: 0,
        expected,
        absorbed: 7,
        head: "head".into(),
        chunks: vec![],
        removed: vec![],
        whole,
        idle_after: None,
    };
    let session = store.session().await.unwrap();
    let write = async |write: PieceWrite| store.write(session, &view, vec![write]).await;
    assert_eq!(write(put("a", None, true)).await.unwrap(), [WriteOutcome::Written]);
    assert_eq!(write(put("b", None, false)).await.unwrap(), [WriteOutcome::Written]);
    redis.kill();
    std::fs::remove_dir_all(redis.folder.path().join("appendonlydir")).unwrap();
    redis.start_again();
    // The connection that broke is made again by whoever fails first.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.read(&view, &[EntityKey::from("a".to_owned())]).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    for lost in [put("a", Some(7), false), put("b", None, false), put("c", Some(7), true)] {
        let refused = write(lost.clone()).await;
        assert!(matches!(refused, Err(StoreError::SessionEnded { .. })), "{lost:?}: {refused:?}");
    }
    assert_eq!(write(put("d", None, true)).await.unwrap(), [WriteOutcome::Written]);
    let progress = store.set_progress(session, &view, 0, None, 8).await;
    assert!(matches!(progress, Err(StoreError::SessionEnded { .. })), "{progress:?}");
}

/// Everything in Redis is gone; at last of the topic too, so that what was is in the archive only.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_rebuilt_from_the_archive() {
    let mut random = random();
    let redis = Redis::start();
    let mut topic = Topic::new("redis-emptied").await;
    let shop = Shop::with_redis(&topic, "redis-emptied", &redis.url()).and_plain();
    let events = events(&mut random);
    let up = shop.engine(0);
    let mut shares = events.chunks(events.len() / 4);
    topic.send(shares.next().unwrap()).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    for share in shares {
        assert_eq!(redis.run(&["FLUSHALL"]), "OK");
        topic.send(share).await;
        up.wait_until("that it notices", |up| up.metric("tidemark_stream_retries_total", "lost") > 0.0);
        up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    }
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;

    // Nothing comes in meanwhile: it is noticed all the same.
    let up = shop.engine(2);
    up.wait_until("readiness", |up| shop.owned_by(up) && up.get("/ready").0 == 200);
    assert_eq!(redis.run(&["FLUSHALL"]), "OK");
    up.wait_until("that it notices", |up| up.metric("tidemark_stream_retries_total", "lost") > 0.0);
    up.wait_until("readiness", |up| up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;

    let before = shop.online().await;
    for partition in 0..PARTITIONS as i32 {
        topic.forget(partition, -1).await;
    }
    assert_eq!(redis.run(&["FLUSHALL"]), "OK");
    let up = shop.engine(1);
    up.wait_until("readiness", |up| shop.owned_by(up) && up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    let after = shop.online().await;
    assert!(
        before == after,
        "{} of {} values differ",
        before.iter().filter(|(k, v)| after.get(*k) != Some(v)).count(),
        before.len()
    );
}

/// A full Redis refuses writes: the stream pauses, says why, and goes on once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_pauses_the_stream() {
    let mut random = random();
    let redis = Redis::start();
    let mut topic = Topic::new("redis-full").await;
    let shop = Shop::with_redis(&topic, "redis-full", &redis.url());
    let events = events(&mut random);
    let up = shop.engine(0);
    let (first, second) = events.split_at(events.len() / 2);
    topic.send(first).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    assert_eq!(redis.run(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    topic.send(second).await;
    up.wait_until("words on what it waits for", |up| says_stalled(up, "maxmemory"));
    assert_eq!(up.metric("tidemark_stream_stalled", "cause=\"store\""), 1.0);
    assert_eq!(redis.run(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
}

/// A Redis that takes what is sent and answers nothing, for longer than its client waits: the stream says so, and once it
/// answers again goes on, whatever became of the writes that were on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_holds_the_stream_up() {
    let mut random = random();
    let redis = Redis::start();
    let mut topic = Topic::new("redis-slow").await;
    let shop = Shop::with_redis(&topic, "redis-slow", &redis.url()).and_plain();
    let events = events(&mut random);
    let mut shares = events.chunks(events.len().div_ceil(3));
    let up = shop.engine(0);
    topic.send(shares.next().unwrap()).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.metric("tidemark_stream_retries_total", ""), 0.0);
    redis.signal("STOP");
    for batch in batches(&mut random, shares.next().unwrap(), 100) {
        topic.send(batch).await;
    }
    up.wait_until("words on what it waits for", |up| says_stalled(up, "timed out"));
    for source in ["payments", "plain"] {
        let labels = format!("cause=\"store\",source=\"{source}\"");
        up.wait_until("that it is counted", |up| {
            up.metric("tidemark_stream_stalled", &labels) == 1.0
                && up.metric("tidemark_stream_retries_total", &labels) > 0.0
        });
    }
    assert!(!shop.absorbed(&topic, &up));
    topic.send(shares.next().unwrap()).await;
    redis.signal("CONT");
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.metric("tidemark_stream_stalled", ""), 0.0);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
}

/// TLS, and a user who may do only what the store does.
#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_with_a_user_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", &key, "-out", &certificate])
        .args(subject)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let commands =
        "+@hash +@set +pexpire +persist +evalsha +script|load +script|exists +info +scan +unlink +memory|usage";
    let user = format!("user app on >se:cret ~* {commands}");
    std::fs::write(path("users.acl"), format!("user default off\n{user}\n")).unwrap();
    let port = free_port();
    let child = Command::new("redis-server")
        .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--tls-auth-clients", "no"])
        .args(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate])
        .args(["--aclfile", &path("users.acl"), "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let redis = Redis::of(folder, port, child);
    let mut topic = Topic::new("redis-tls").await;
    let shop = Shop::with_redis(&topic, "redis-tls", &format!("rediss://app:se%3Acret@localhost:{port}"));
    let events = events(&mut random());
    topic.send(&events).await;
    let drain = || shop.command().args(["stream", "--until-end"]).env("SSL_CERT_FILE", &certificate).output().unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let output = loop {
        let output = drain();
        let starting = String::from_utf8_lossy(&output.stderr).contains("can't connect");
        if output.status.success() || !starting || std::time::Instant::now() > deadline {
            break output;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("\"events\":{}", events.len())), "{said}");
    // Whom the certificate's signer is not trusted by doesn't connect, and no error shows the password.
    let refused = shop.command().args(["stream", "--until-end"]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("can't connect") && !words.contains("cret"), "{words}");
    drop(redis);
}

/// A key that an engine has in memory, and Redis no longer: its next event begins it anew, and nothing else is disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expired_begins_anew() {
    let redis = Redis::start();
    let mut topic = Topic::new("redis-expired").await;
    let shop = Shop::with_redis(&topic, "redis-expired", &redis.url());
    let events = events(&mut random());
    let (first, second) = events.split_at(events.len() / 2);
    let up = shop.engine(0);
    topic.send(first).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    let keys = redis.run(&["--scan", "--pattern", "*:user_spend:*{*}"]);
    for key in keys.lines().filter(|key| !key.contains('@')) {
        assert_eq!(redis.run(&["DEL", key]), "1");
    }
    topic.send(second).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    assert_eq!(up.metric("tidemark_stream_retries_total", ""), 0.0, "{}", up.logged());
    assert!(redis.run(&["--scan", "--pattern", "*:user_spend:*{*}"]).lines().count() > 10);
    assert_eq!(up.stop(), Some(0));
}

/// Keys that had no event for longer than a view looks back are forgotten; those of unbounded frames never.
#[tokio::test(flavor = "multi_thread")]
async fn idle_keys_expire() {
    let redis = Redis::start();
    let mut topic = Topic::new("redis-idle").await;
    let shop = Shop::with_redis(&topic, "redis-idle", &redis.url());
    topic.send(&events(&mut random())).await;
    shop.drain();
    let ttl = |view: &str| {
        let keys = redis.run(&["--scan", "--pattern", &format!("*:{view}:*{{1}}")]);
        redis.run(&["TTL", keys.lines().next().unwrap()]).parse::<i64>().unwrap()
    };
    // An hour of frame, an hour of lateness, five minutes that a clock may be ahead, twice, and two minutes to spare.
    assert!((7820..=7920).contains(&ttl("user_spend")), "{}", ttl("user_spend"));
    assert_eq!(ttl("user_ever"), -1);
    assert_eq!(ttl("user_last"), -1, "the last five events are that however old they are");
    // So a user who isn't there now may have been, an hour ago and more: it isn't known, and not said.
    let platform = shop.platform().await;
    let store = RedisStore::open(&RedisConfig { keep_idle: false, ..shop.redis_config() }).await.unwrap();
    let reader = Reader::new(Arc::new(store));
    let user: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    for (view, expected) in [("user_spend", ReadStatus::OutsideRetention), ("user_ever", ReadStatus::Present)] {
        let view = &platform.project.views[view];
        let answer = reader.view(view, std::slice::from_ref(&user), &[START + SPAN]).await.unwrap();
        assert_eq!(answer.views[0].status, [expected]);
    }
    assert_eq!(redis.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let refused = shop.command().args(["stream", "--until-end"]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("maxmemory-policy is allkeys-lru; expected noeviction"), "{words}");
}
