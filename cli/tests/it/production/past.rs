//! A declared history before a topic: several engines, one of which is killed while views fill, and a load beside them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rand::RngExt;
use serde_json::Value as Json;

use super::harness::{Shop, Topic, caught_up, random, service};
use crate::past::{files, payments, spine};
use crate::support::read;

const HISTORY: usize = 60_000;
const ALL: usize = 66_000;
const OPTION: &str = ", history = 'past/*.parquet'";
const KEEPING: [&str; 5] = ["--commit-every", "0.1", "--redis-keep-idle", "--memory-limit", "4MB"];

fn shop(topic: &Topic, role: &str, history: &[Json]) -> Shop {
    let shop = Shop::with_options(topic, role, &service("REDIS_URL", "redis"), OPTION);
    files(&shop.project.path("past"), history);
    shop.project.write("spine.csv", spine());
    shop
}

fn set(shop: &Shop) -> Vec<arrow::array::RecordBatch> {
    let spine = spine().replace("user_id,at", "user_id,amount,at").replace(",2024", ",7.5,2024");
    shop.project.write("spine.csv", spine);
    shop.ok(&[
        "training-set",
        "--spine",
        "spine.csv",
        "--service",
        "score",
        "--timestamp",
        "at",
        "--out",
        "set.parquet",
    ]);
    read(&shop.project.path("set.parquet"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_and_a_topic_are_one_past() {
    let mut random = random();
    let mut topic = Topic::new("past").await;
    let payments = payments(ALL);
    let (history, live) = payments.split_at(HISTORY);
    let shop_of = shop(&topic, "past", history);
    topic.send(&live[..3_000]).await;

    // Two engines and two loads, until one of each was killed before the views had everything.
    let (mut engines, mut kills) = (vec![shop_of.spawn(0, &KEEPING, |_| ()).unwrap()], 0);
    for round in 1..4 {
        engines.push(shop_of.spawn(round, &KEEPING, |_| ()).unwrap());
        let mut load = shop_of.command();
        load.args(["backfill", "--view", "user_ever", "--online", "--redis-keep-idle", "--memory-limit", "1MB"]);
        let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(100..600)));
        let killed = engines.remove(0);
        kills += usize::from(killed.metric("tidemark_view_filling", "") > 0.0 && load.try_wait().unwrap().is_none());
        killed.kill();
        let _ = load.kill();
        load.wait().unwrap();
    }
    println!("{kills} of 3 kills while views filled");
    topic.send(&live[3_000..]).await;
    let last = engines.remove(0);
    last.wait_until("the end", |up| {
        shop_of.owned_by(up)
            && caught_up(up)
            && shop_of.absorbed(&topic, up)
            && up.metric("tidemark_view_filling", "") == 0.0
    });
    last.wait_until_ready();
    assert_eq!(last.stop(), Some(0));
    assert!(kills > 0, "no kill while views filled");

    let calm = shop(&topic, "calm", history);
    calm.ok(&["stream", "--until-end", "--redis-keep-idle"]);
    let (there, here) = (calm.online().await, shop_of.online().await);
    assert!(there.values().filter(|value| value.starts_with("Present")).count() > 100, "compared over nothing");
    let differ: Vec<_> = there.iter().filter(|(what, expected)| here.get(*what) != Some(expected)).collect();
    assert!(differ.is_empty(), "{} values differ, {:?}, here {:?}", differ.len(), differ[0], here.get(differ[0].0));
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    payments.iter().for_each(|payment| *counts.entry(payment["user_id"].as_i64().unwrap()).or_default() += 1);
    assert_eq!(shop_of.counts("user_ever").await, counts, "none lost, none twice");
    assert_eq!(set(&shop_of), set(&calm));
}
