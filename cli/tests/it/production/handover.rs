//! From history to stream: the online store is loaded while events come in at 5,000 a second, killed and resumed, and a roll-out of changed
//! definitions follows, with reads all the while.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use rand::RngExt;
use serde_json::{Value as Json, json};

use super::harness::{Shop, Topic, caught_up, random};
use crate::crash::{MINUTE, SPAN, START, USERS};
use crate::support::{Up, read, text};

/// Events that are there before, and those that come meanwhile.
const HISTORY: usize = 50_000;
const A_SECOND: usize = 5_000;
/// The most that may come.
const MOST: usize = 400_000;

const CHANGED: &str = "2 * COUNT(*) OVER ever AS payments";
const NEW: &str = "
CREATE FEATURE VIEW user_day AS
SELECT user_id, COUNT(*) OVER day AS payments_24h, AVG(amount) OVER day AS avg_24h, COUNT(DISTINCT shop) OVER day AS shops_24h
FROM payments
WINDOW day AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE everything (user_id BIGINT) AS
SELECT s.payments_1h, s.spend_1h, s.avg_1h, s.stddev_1h, s.shops_1h, s.last_shop, l.last_5, l.fifth_shop,
  e.payments, e.spend, e.largest, d.payments_24h, d.avg_24h, d.shops_24h
FROM request
LEFT JOIN user_spend s ON s.user_id = request.user_id
LEFT JOIN user_last l ON l.user_id = request.user_id
LEFT JOIN user_ever e ON e.user_id = request.user_id
LEFT JOIN user_day d ON d.user_id = request.user_id;
";
/// Keys are not forgotten, so that the past can be read.
const KEEPING: [&str; 3] = ["--commit-every", "0.1", "--redis-keep-idle"];
/// Where the changed definitions are, and the data that both versions share.
const NEXT: [&str; 4] = ["--features", "next/features", "--data", "data"];

fn event(i: usize) -> Json {
    let late = if i % 20 == 3 { 20 * MINUTE } else { 0 };
    let at = START + SPAN * i as i64 / MOST as i64 - late;
    json!({
        "id": format!("p{i}"), "user_id": (i * 7919) as i64 % USERS, "shop": format!("shop {}", i % 8),
        "amount": (i * 31 % 997) as f64 / 100.0, "note": null, "at": at,
    })
}

/// Reads a view and a service, again and again, from wherever it is told.
struct Reads {
    from: Arc<Mutex<String>>,
    done: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Reads {
    fn begin(url: &str) -> Self {
        let from = Arc::new(Mutex::new(url.to_owned()));
        let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (url, stop, count) = (from.clone(), done.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut failed = vec![];
            for user in (0..USERS).cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // Held, so that who changes it knows that no read is under way.
                let url = url.lock().unwrap();
                let view = agent.get(format!("{url}/v1/views/user_ever?user_id={user}")).call();
                let rows = json!({"rows": [{"user_id": user, "amount": 1.0}]}).to_string();
                let service =
                    agent.post(format!("{url}/v1/services/score")).content_type("application/json").send(rows);
                for answer in [view, service] {
                    match answer {
                        Ok(mut answer) if answer.status() == 200 => {
                            // Read to the end, so that the connection is used again.
                            let _ = answer.body_mut().read_to_string();
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(mut answer) => {
                            failed.push(format!("{url}: {} {:?}", answer.status(), answer.body_mut().read_to_string()))
                        }
                        Err(error) => failed.push(format!("{url}: {error}")),
                    }
                }
            }
            failed
        });
        Self { from, done, answered, thread }
    }

    fn turn_to(&self, url: &str) {
        *self.from.lock().unwrap() = url.to_owned();
    }

    fn end(self) -> (usize, Vec<String>) {
        self.done.store(true, Ordering::SeqCst);
        let failed = self.thread.join().unwrap();
        (self.answered.load(Ordering::SeqCst), failed)
    }
}

fn load(shop: &Shop) -> Command {
    let mut load = shop.command();
    load.args(NEXT).args(["backfill", "--view", "user_ever", "--online", "--redis-keep-idle"]);
    // So many stretches that it can be interrupted between two.
    load.args(["--memory-limit", "1MB"]);
    load
}

/// Kills a load in the middle of its work; false if it was faster.
fn kill(mut load: Child, after: Duration) -> bool {
    std::thread::sleep(after);
    let midway = load.try_wait().unwrap().is_none();
    let _ = load.kill();
    load.wait().unwrap();
    midway
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_handed_over_to_a_stream_that_runs() {
    let mut random = random();
    let mut topic = Topic::new("handover").await;
    let shop = Shop::new(&topic, "handover");
    let file = |path: &str| std::fs::read_to_string(shop.project.path(path)).unwrap();
    let views = file("features/views.sql");
    assert!(views.contains("COUNT(*) OVER ever AS payments"));
    for path in ["schemas/payments.v1.avsc", "features/sources.sql", "features/services.sql"] {
        shop.project.write(&format!("next/{path}"), file(path));
    }
    shop.project.write("next/features/views.sql", views.replace("COUNT(*) OVER ever AS payments", CHANGED) + NEW);

    // The old definitions, all of whose views have what there was.
    let before = shop.engine_with(0, &KEEPING);
    for i in (0..HISTORY).step_by(1000) {
        topic.send_keyed(&(i..i + 1000).map(event).collect::<Vec<_>>(), "id").await;
    }
    before.wait_until("the history", |up| caught_up(up) && shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    before.wait_until("the release", |_| shop.project.path("data/offline/releases/live.json").exists());

    let reads = Reads::begin(before.url());
    let (stop, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let stopped = stop.clone();
    let producer = tokio::spawn(async move {
        const TICK: usize = 50;
        let mut tick = tokio::time::interval(Duration::from_millis(1000 / TICK as u64));
        let mut sent = HISTORY;
        while !stopped.load(Ordering::SeqCst) && sent + A_SECOND < MOST {
            tick.tick().await;
            let next = sent + A_SECOND / TICK;
            topic.send_keyed(&(sent..next).map(event).collect::<Vec<_>>(), "id").await;
            sent = next;
        }
        (topic, sent)
    });

    // Loaded, and killed twice in the middle.
    let mut kills = 0;
    let mut patience = 20;
    while kills < 2 {
        patience -= 1;
        assert!(patience > 0, "no load could be killed in the middle");
        let running = load(&shop).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let after = Duration::from_millis(random.random_range(200..900));
        kills += usize::from(tokio::task::spawn_blocking(move || kill(running, after)).await.unwrap());
    }
    let loaded = tokio::task::spawn_blocking({
        let mut load = load(&shop);
        move || load.output().unwrap()
    });
    let loaded = loaded.await.unwrap();
    assert!(loaded.status.success(), "{}", text(&loaded.stderr));
    // Before the last line it says how far it is.
    let said = text(&loaded.stdout);
    let said: Json = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
    println!("after {kills} kills: {said}");
    let offsets = said["offsets"].as_object().unwrap().values();
    let (from, to) =
        offsets.fold((0, 0), |(from, to), range| (from + range[0].as_i64().unwrap(), to + range[1].as_i64().unwrap()));
    assert!(to > HISTORY as i64, "{said}");

    // A roll-out: the new definitions beside the old ones, and then alone.
    let with = [KEEPING.as_slice(), &NEXT].concat();
    let after = shop.spawn(1, &with, |_| ()).unwrap_or_else(|log| panic!("the next engine did not start: {log}"));
    let answers = |up: &Up| {
        up.get("/v1/views/user_ever?user_id=1").0 == 200
            && up.post("/v1/services/score", &json!({"rows": [{"user_id": 1, "amount": 1.0}]})).0 == 200
    };
    after.wait_until("its answers", answers);
    reads.turn_to(after.url());
    assert_eq!(before.stop(), Some(0));
    let filled = |up: &Up| shop.owned_by(up) && up.metric("tidemark_view_filling", "") == 0.0;
    after.wait_until("that all views are filled", filled);
    // And on, for the new version alone.
    let filled = reads.answered.load(Ordering::SeqCst);
    after.wait_until("more reads", |_| reads.answered.load(Ordering::SeqCst) > filled + 300);
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Ordering::SeqCst);
    let (topic, sent) = producer.await.unwrap();
    println!("{} events a second for {seconds:.1} s; resumed at {from} of {to}", (sent - HISTORY) as f64 / seconds);
    assert!(sent + A_SECOND < MOST, "the roll-out took longer than the events");
    after.wait_until("the end", |up| caught_up(up) && shop.absorbed(&topic, up));
    let (answered, failed) = reads.end();
    println!("{answered} reads answered");
    assert!(failed.is_empty(), "{} of {answered} reads failed: {:?}", failed.len(), failed.first());
    assert!(answered > 400, "{answered}");

    compare(&shop, &after, sent);
    assert_eq!(after.stop(), Some(0));
}

/// Every value that is served is what a training set gets.
fn compare(shop: &Shop, up: &Up, sent: usize) {
    let newest = START + SPAN * sent as i64 / MOST as i64;
    let mut spine = String::from("user_id,label_time\n");
    let (mut rows, mut instants) = (vec![], vec![]);
    for at in [newest, newest - 10 * MINUTE, newest - 40 * MINUTE] {
        let at = chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339();
        for user in 0..USERS {
            writeln!(spine, "{user},{at}").unwrap();
            rows.push(json!({ "user_id": user }));
            instants.push(json!(at));
        }
    }
    shop.project.write("spine.csv", spine);
    let args = [
        "training-set",
        "--spine",
        "spine.csv",
        "--service",
        "everything",
        "--timestamp",
        "label_time",
        "--out",
        "set.parquet",
    ];
    shop.ok(&[&NEXT, args.as_slice()].concat());
    let set = read(&shop.project.path("set.parquet"));
    let set = concat_batches(&set[0].schema(), &set).unwrap();
    let (status, answer) = up.post("/v1/services/everything", &json!({"rows": rows, "as_of": instants}));
    assert_eq!(status, 200, "{answer}");
    let mut compared = 0;
    for (row, served) in answer["rows"].as_array().unwrap().iter().enumerate() {
        for (feature, value) in served.as_object().unwrap() {
            assert_eq!(&trained(&set, feature, row), value, "row {row}: {feature}");
            compared += usize::from(!value.is_null());
        }
    }
    assert!(compared > 1000, "{compared}");
    let payments: i64 = set["payments"].as_primitive::<Int64Type>().values().iter().take(USERS as usize).sum();
    let there = (0..sent).filter(|i| event(*i)["at"].as_i64().unwrap() <= newest).count();
    assert_eq!(payments, 2 * there as i64, "none lost, none twice");
}

/// A value of a training set, as REST writes it.
fn trained(set: &RecordBatch, column: &str, row: usize) -> Json {
    let column = &set[column];
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        _ => json!(column.as_string::<i32>().value(row)),
    }
}
