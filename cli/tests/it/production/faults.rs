//! Processes that are killed or stopped, and a Kafka that goes away.

use std::collections::VecDeque;
use std::process::{Command, ExitStatus};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::harness::{Proxy, Redis, Shop, Topic, batches, caught_up, owned, random, says_stalled, script, service};
use crate::crash::events;
use crate::support::{Process, Up, kill};

const KILLS: usize = 20;

/// How a process was found when it was to be killed, and how many messages the topic held when it was dead.
type Killed = (Option<ExitStatus>, usize);

fn kill_after(after: Duration, process: Process, topic: &Topic) -> JoinHandle<Killed> {
    let messages = topic.counter();
    std::thread::spawn(move || {
        std::thread::sleep(after);
        let found = process.lock().unwrap().try_wait().unwrap();
        kill(&process);
        (found, messages())
    })
}

/// One engine, killed and started again at random moments while events come in.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_moments_changes_nothing() {
    let mut random = random();
    let mut topic = Topic::new("kill").await;
    let shop = Shop::new(&topic, "killed").and_plain();
    let events = events(&mut random);
    let mut batches: VecDeque<_> = batches(&mut random, &events, 12).into();
    let (mut in_mid_work, mut with_work_left) = (0, 0);
    for life in 0..KILLS {
        for batch in batches.drain(..batches.len().min(5)) {
            topic.send(batch).await;
        }
        // Sometimes while it starts, sometimes in the middle of its work.
        let starting = random.random_bool(0.3);
        let after = Duration::from_millis(random.random_range(0..if starting { 800 } else { 250 }));
        let mut killer = None;
        let started = shop.spawn(life, &["--commit-every", "0.1"], |process| {
            killer = starting.then(|| kill_after(after, process, &topic));
        });
        if !starting {
            let up = started.as_ref().unwrap_or_else(|log| panic!("life {life} did not start: {log}"));
            up.wait_until("its first events", |up| up.metric("tidemark_source_events_total", "") > 0.0);
            killer = Some(kill_after(after, up.process(), &topic));
            in_mid_work += 1;
        }
        let killer = killer.unwrap();
        while !killer.is_finished()
            && let Some(batch) = batches.pop_front()
        {
            topic.send(batch).await;
        }
        let (found, messages) = killer.join().unwrap();
        // A start that gives an error is one that was killed before it listened, and no other.
        assert_eq!(found, None, "life {life} had ended by itself: {:?}", started.err());
        // Nothing writes any more: what isn't committed was left to do.
        with_work_left += usize::from(shop.committed().await < messages);
    }
    println!("{KILLS} kills, {in_mid_work} after the first events, {with_work_left} with work left");
    println!("{} batches were sent after the last", batches.len());
    assert!(in_mid_work >= KILLS / 2 && with_work_left >= KILLS * 3 / 4);
    for batch in batches {
        topic.send(batch).await;
    }
    shop.equals_a_calm_run(&topic).await;
}

/// An engine that stands still while a write of it is on the way, and goes on as if nothing had happened when another
/// engine has done its work: its late write is refused, and so is its commit of what it had done before.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced() {
    /// Long enough that it doesn't commit before it is stopped, and short enough that it wants to as soon as it wakes.
    const COMMIT_EVERY: Duration = Duration::from_secs(4);
    let mut random = random();
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port);
    let mut topic = Topic::new("zombie").await;
    let shop = Shop::with_redis(&topic, "zombie", &redis.url()).and_plain();
    let events = events(&mut random);
    let mut shares = events.chunks(events.len() / 8);
    let args = ["--redis-url", &proxy.url(), "--commit-every", &COMMIT_EVERY.as_secs().to_string()];
    let zombie = shop.engine_with(0, &args);
    topic.send(shares.next().unwrap()).await;
    zombie.wait_until("its partitions", |up| shop.absorbed(&topic, up));
    for round in 1..=2 {
        let read = |up: &Up| up.metric("tidemark_source_events_total", "source=\"plain\"");
        let (before, share) = (read(&zombie), shares.next().unwrap());
        topic.send(share).await;
        zombie.wait_until("events that it has not committed", |up| read(up) == before + share.len() as f64);
        let absorbed = Instant::now();
        let replayed = zombie.metric("tidemark_view_events_total", "outcome=\"replayed\"");
        let fenced = zombie.metric("tidemark_stream_retries_total", "cause=\"fenced\"");
        proxy.hold_a_write();
        topic.send(shares.next().unwrap()).await;
        zombie.wait_until("a write on the way", |_| proxy.holds());
        zombie.signal("STOP");
        let heir = shop.engine(round);
        heir.wait_until("all partitions", |up| shop.owned_by(up));
        topic.send(shares.next().unwrap()).await;
        heir.wait_until("what the zombie left", |up| shop.absorbed(&topic, up));
        heir.wait_until("the zombie's commit to be due", |_| absorbed.elapsed() > COMMIT_EVERY);
        // Its client gives a write up after ten seconds, and nothing would be late any more.
        println!("the zombie wakes after {:.1} s", absorbed.elapsed().as_secs_f64());
        proxy.release();
        zombie.signal("CONT");
        zombie.wait_until("partitions of its own", |up| owned(up) > 0 && owned(up) + owned(&heir) == 6);
        // What it wrote late was on top of what is there no longer: it read that, and found its events in it.
        assert!(zombie.metric("tidemark_view_events_total", "outcome=\"replayed\"") > replayed, "{}", zombie.logged());
        assert!(zombie.metric("tidemark_stream_retries_total", "cause=\"fenced\"") > fenced, "{}", zombie.logged());
        heir.wait_until("the end", caught_up);
        drop(heir);
        zombie.wait_until("all partitions again", |up| shop.owned_by(up) && caught_up(up));
    }
    assert_eq!(zombie.stop(), Some(0));
    for share in shares {
        topic.send(share).await;
    }
    shop.equals_a_calm_run(&topic).await;
}

/// Kafka is ended, and at last killed, and comes back: the engine says why it waits, and goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_restarts() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let port = 20_000 + random.random_range(0..5000) * 2;
    let services = |verb: &str| {
        let mut command = Command::new(script());
        command.args([verb, "kafka"]).env("SERVICES_RUN", folder.path()).env("KAFKA_PORT", port.to_string());
        let output = command.env_remove("KAFKA_BROKERS").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    service("KAFKA_BROKERS", "kafka");
    services("start");
    let mut topic = Topic::at(&format!("127.0.0.1:{port}"), "restart", 3).await;
    let shop = Shop::new(&topic, "restarted");
    let events = events(&mut random);
    let mut shares = events.chunks(events.len().div_ceil(3));
    let up = shop.engine(0);
    topic.send(shares.next().unwrap()).await;
    up.wait_until("partitions", |up| shop.owned_by(up));
    services("stop");
    // Its session runs out: Kafka's client takes the partitions back, and there is nothing left whose read would fail.
    up.wait_until("the loss of its partitions", |up| owned(up) == 0);
    up.wait_until("words on what it waits for", |up| says_stalled(up, "topic restart"));
    services("start");
    topic.send(shares.next().unwrap()).await;
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    // In the middle of what the engine reads and commits.
    topic.send(shares.next().unwrap()).await;
    let broker = std::fs::read_to_string(folder.path().join("kafka/pid")).unwrap();
    assert!(Command::new("kill").args(["-9", broker.trim()]).status().unwrap().success());
    up.wait_until("words on what it waits for", |up| says_stalled(up, "topic restart"));
    services("start");
    up.wait_until("readiness", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    assert_eq!(up.stop(), Some(0));
    shop.equals_a_calm_run(&topic).await;
    services("stop");
}
