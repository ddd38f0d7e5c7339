//! A source's declared history, through the binary: what comes of files and a stream is what comes of one stream, online and offline,
//! whoever fills and whoever is killed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::ArrowWriter;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use tidemark_engine::offline::HISTORY;
use tidemark_engine::online::{EmbeddedStore, OnlineStore};
use tidemark_engine::plan;

use crate::crash::{MINUTE, SPAN, START, USERS};
use crate::support::{Project, Up, files_below, read, shop_project, text};

const ALL: &str = "
CREATE FEATURE SERVICE all_v1 (user_id BIGINT) AS
SELECT s.payments_1h, s.spend_1h, s.avg_1h, s.stddev_1h, s.shops_1h, s.last_shop, l.last_5, l.fifth_shop, e.payments, e.spend, e.largest
FROM request
LEFT JOIN user_spend s ON s.user_id = request.user_id
LEFT JOIN user_last l ON l.user_id = request.user_id
LEFT JOIN user_ever e ON e.user_id = request.user_id;
";

/// Payments out of order, some late by hours, no two at the same instant.
pub fn payments(n: usize) -> Vec<Json> {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut payment = |i: usize| {
        let most = if random.random_bool(0.05) { 180 * MINUTE } else { MINUTE };
        let late = random.random_range(0..most);
        let at = (START + SPAN * i as i64 / n as i64 - late) / 100_000 * 100_000 + i as i64;
        json!({
            "id": format!("p{i}"), "user_id": random.random_range(0..USERS), "shop": format!("shop {}", random.random_range(0..8)),
            "amount": random.random_range(1..100_000) as f64 / 100.0, "note": null, "at": at,
        })
    };
    (0..n).map(&mut payment).collect()
}

/// Payments as a Parquet file.
pub fn file(path: &Path, payments: &[Json]) {
    let text =
        |name: &str| -> ArrayRef { Arc::new(payments.iter().map(|p| p[name].as_str()).collect::<StringArray>()) };
    let number = |name: &str| payments.iter().map(|p| p[name].as_i64()).collect::<Vec<_>>();
    let times = TimestampMicrosecondArray::from(number("at")).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 6] = [
        ("shop", text("shop")),
        ("id", text("id")),
        ("user_id", Arc::new(Int64Array::from(number("user_id")))),
        ("amount", Arc::new(payments.iter().map(|p| p["amount"].as_f64()).collect::<Float64Array>())),
        ("note", new_null_array(&DataType::Utf8, payments.len())),
        ("at", Arc::new(times)),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// Payments as files, by no order.
pub fn files(folder: &Path, payments: &[Json]) {
    for (i, part) in payments.chunks(payments.len().div_ceil(3)).enumerate() {
        file(&folder.join(format!("{}.parquet", ["b", "c", "a"][i])), part);
    }
}

pub fn shop(history: &str) -> Project {
    let project = shop_project(2);
    let source = std::fs::read_to_string(project.path("features/sources.sql")).unwrap();
    if !history.is_empty() {
        let source = source.replace("partitions = 2", &format!("partitions = 2, history = '{history}'"));
        project.write("features/sources.sql", source);
    }
    project.write("features/all.sql", ALL);
    project.write("spine.csv", spine());
    project
}

pub fn spine() -> String {
    let mut spine = String::from("user_id,at\n");
    for at in [START + SPAN / 4, START + SPAN / 2, START + SPAN, START + SPAN + 50 * MINUTE] {
        let at = chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339();
        (0..USERS + 1).for_each(|user| writeln!(spine, "{user},{at}").unwrap());
    }
    spine
}

const SET: [&str; 7] = ["training-set", "--spine", "spine.csv", "--service", "all_v1", "--timestamp", "at"];

fn set(project: &Project, out: &str) -> RecordBatch {
    project.ok(&[&SET[..], &["--out", out]].concat());
    let batches = read(&project.path(out));
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn push(up: &Up, payments: &[Json]) {
    for batch in payments.chunks(5_000) {
        let (status, answer) = up.post("/v1/sources/payments/events", &json!({ "events": batch }));
        assert_eq!((status, &answer["accepted"]), (200, &json!(batch.len())), "{answer}");
    }
}

fn stream(project: &Project, payments: &[Json]) {
    let up = project.up(&["--commit-every", "0.2"]);
    push(&up, payments);
    assert_eq!(up.stop(), Some(0));
    project.ok(&["stream", "--until-end"]);
}

/// What is read of every view for every key, at instants that no piece has let go of.
fn online(up: &Up) -> BTreeMap<String, Json> {
    up.wait_until_ready();
    let users: Vec<Json> = (0..USERS).map(|user| json!({ "user_id": user })).collect();
    let shops: Vec<Json> = (0..8).map(|shop| json!({"shop": format!("shop {shop}")})).collect();
    let views =
        ["user_spend", "user_last", "user_ever"].map(|view| (view, &users)).into_iter().chain([("shop_tiles", &shops)]);
    let mut values = BTreeMap::new();
    for (view, keys) in views {
        for as_of in [START + SPAN, START + SPAN + 50 * MINUTE] {
            let (status, answer) = up.post(&format!("/v1/views/{view}"), &json!({"keys": keys, "as_of": as_of}));
            assert_eq!(status, 200, "{view}: {answer}");
            for (row, (values_of, key)) in answer["rows"].as_array().unwrap().iter().zip(keys).enumerate() {
                let status = &answer["status"][row];
                values.insert(format!("{view} {key} {as_of}"), json!([values_of, status]));
            }
        }
    }
    values
}

pub fn served(project: &Project) -> BTreeMap<String, Json> {
    let up = project.up(&[]);
    let values = online(&up);
    assert_eq!(up.stop(), Some(0));
    values
}

/// A training set's values are those that the service reads.
fn agrees(project: &Project, set: &RecordBatch) {
    let up = project.up(&[]);
    up.wait_until_ready();
    let at = START + SPAN;
    let rows: Vec<Json> = (0..USERS).map(|user| json!({ "user_id": user })).collect();
    let (status, answer) = up.post("/v1/services/all_v1", &json!({"rows": rows, "as_of": at}));
    assert_eq!(status, 200, "{answer}");
    let first = 2 * (USERS as usize + 1);
    let mut compared = 0;
    for (row, served) in answer["rows"].as_array().unwrap().iter().enumerate() {
        for (feature, value) in served.as_object().unwrap() {
            let column = &set[feature.as_str()];
            let trained = match column.data_type() {
                _ if column.is_null(first + row) => Json::Null,
                DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(first + row)),
                DataType::Float64 => {
                    json!(column.as_primitive::<Float64Type>().value(first + row))
                }
                _ => json!(column.as_string::<i32>().value(first + row)),
            };
            assert_eq!(&trained, value, "user {row}: {feature}");
            compared += usize::from(!value.is_null());
        }
    }
    assert!(compared > 200, "{compared}");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn files_and_a_stream_are_one_past() {
    let payments = payments(6_000);
    let (before, live) = payments.split_at(4_000);
    let (split, whole) = (shop("past/*.parquet"), shop(""));
    files(&split.path("past"), before);

    // Before anything has come by the stream.
    split.ok(&["stream", "--until-end"]);
    let early = set(&split, "early.parquet");
    agrees(&split, &early);

    stream(&split, live);
    stream(&whole, &payments);
    let (a, b) = (set(&split, "a.parquet"), set(&whole, "b.parquet"));
    assert_eq!(a, b);
    assert_ne!(a, early);
    agrees(&split, &a);
    let (there, here) = (served(&whole), served(&split));
    assert!(there.values().filter(|value| value[1] == "PRESENT").count() > 200, "compared over nothing");
    for (what, expected) in &there {
        assert_eq!(here.get(what), Some(expected), "{what}");
    }
    // A set says which history it is of, and a snapshot is made of it too.
    let (a, b) = (split.path("a.parquet"), whole.path("b.parquet"));
    let said = text(&split.run(&["training-set", "--diff", a.to_str().unwrap(), b.to_str().unwrap()]).stdout);
    assert!(said.contains("made from source.payments.history: A 3 files, "), "{said}");
    assert!(!said.contains("column"), "{said}");
    for project in [&split, &whole] {
        project.ok(&["backfill", "--view", "user_spend", "--from", "2024-05-01", "--to", "2024-05-01"]);
    }
    let snapshot = |project: &Project| {
        let files = files_below(&project.path("data/offline/snapshots"), "parquet");
        read(&files[0])
    };
    assert_eq!(snapshot(&split), snapshot(&whole));
    assert!(snapshot(&split)[0].num_rows() >= 39);
    // The archive is the stream's alone.
    let said = split.ok(&["archive", "verify"]);
    assert!(said.contains("payments: complete"), "{said}");
    split.ok(&["compact"]);
    assert_eq!(set(&split, "after.parquet"), set(&whole, "b.parquet"));
}

/// Whether views have all of the history, and whether one has a part of it.
fn filled(project: &Project) -> (bool, bool) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let compiled = plan::Project::open(&project.path(""), &project.path("features")).await.unwrap();
        let path = project.path("data/online.redb");
        if !path.exists() {
            return (false, false);
        }
        let store = EmbeddedStore::open(path).unwrap();
        let end = compiled.sources["payments"].history.as_ref().unwrap().end();
        let mut at = vec![];
        for view in compiled.views.values() {
            at.push(store.progress(&view.id()).await.unwrap().get(&HISTORY).copied().unwrap_or(0));
        }
        (at.iter().all(|at| *at == end), at.iter().any(|at| 0 < *at && *at < end))
    })
}

#[test]
fn a_fill_that_is_killed_goes_on_where_it_was() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let payments = payments(40_000);
    let (before, live) = payments.split_at(36_000);
    let calm = shop("past/*.parquet");
    files(&calm.path("past"), before);
    stream(&calm, live);
    let expected = served(&calm);

    let killed = shop("past");
    files(&killed.path("past"), before);
    std::fs::create_dir_all(killed.path("data")).unwrap();
    std::fs::copy(calm.path("data/log.redb"), killed.path("data/log.redb")).unwrap();
    let verbs: [&[&str]; 2] = [
        &["stream", "--until-end", "--memory-limit", "1MB"],
        &["backfill", "--view", "user_ever", "--online", "--memory-limit", "1MB"],
    ];
    let (mut midway, mut patience) = (0, 60);
    while midway < 4 {
        patience -= 1;
        assert!(patience > 0, "only {midway} runs could be killed in the middle");
        let mut run = killed.command();
        run.args(verbs[patience % 2]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(50..1500)));
        let _ = run.kill();
        run.wait().unwrap();
        match filled(&killed) {
            (true, _) if midway < 4 => std::fs::remove_file(killed.path("data/online.redb")).unwrap(),
            (_, partly) => midway += usize::from(partly),
        }
    }
    killed.ok(&["backfill", "--view", "user_last", "--online"]);
    killed.ok(&["stream", "--until-end"]);
    let found = served(&killed);
    for (what, expected) in &expected {
        assert_eq!(found.get(what), Some(expected), "{what}");
    }
    assert_eq!(set(&killed, "a.parquet"), set(&calm, "b.parquet"));
}

#[test]
fn a_load_says_how_far_it_is() {
    let project = shop("past/*.parquet");
    let payments = payments(30_000);
    file(&project.path("past/a.parquet"), &payments[..29_000]);
    file(&project.path("past/b.parquet"), &payments[29_000..]);
    let said = project.ok(&["--json", "backfill", "--view", "user_ever", "--online"]);
    let mut said: Vec<Json> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loaded = said.pop().unwrap();
    assert_eq!((&loaded["event"], &loaded["events"]), (&json!("loaded"), &json!(30_000)));
    assert!(!said.is_empty());
    let (mut read, mut folded) = (0, 0);
    for step in said {
        let [of, now, stored] = ["events", "read", "folded"].map(|field| step[field].as_u64().unwrap());
        assert_eq!(step["event"], "loading");
        assert!(read <= now && folded <= stored && stored <= now && now <= of, "{step}");
        (read, folded) = (now, stored);
    }
    // A view that has everything has nothing to do.
    let again = project.ok(&["--json", "backfill", "--view", "user_ever", "--online"]);
    let last: Json = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["events"]), (&json!("loaded"), &json!(0)));
}

#[test]
fn other_files_are_another_version_and_the_one_before_is_served_meanwhile() {
    let payments = payments(30_000);
    let project = shop("past/*.parquet").with_environment(vec![("LOG_LEVEL".into(), "info".into())]);
    file(&project.path("past/a.parquet"), &payments[..20_000]);
    stream(&project, &payments[29_000..]);
    let count = |from: &[Json]| from.iter().filter(|payment| payment["user_id"] == 7).count();
    let read = |up: &Up| {
        let (status, answer) = up.get(&format!("/v1/views/user_ever?user_id=7&as_of={}", "2024-05-02T00:00:00Z"));
        (status, answer["row"]["payments"].as_u64().unwrap_or(0) as usize)
    };
    let (old, all) = (count(&payments[..20_000]) + count(&payments[29_000..]), count(&payments));
    let up = project.up(&["--commit-every", "0.2"]);
    up.wait_until_ready();
    assert_eq!(read(&up), (200, old));
    up.wait_until("the release", |_| project.path("data/offline/releases/live.json").exists());
    assert_eq!(up.stop(), Some(0));

    file(&project.path("past/b.parquet"), &payments[20_000..29_000]);
    let up = project.up(&["--commit-every", "0.2", "--keep-previous", "0"]);
    up.wait_until("its first answer", |up| read(up).0 == 200);
    up.wait_until("the new version", |up| {
        let (status, payments) = read(up);
        assert!(status == 200 && [old, all].contains(&payments), "{status} {payments}");
        payments == all
    });
    assert!(up.logged().contains("its version before is served until this one is filled"), "{}", up.logged());
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn what_is_wrong_with_a_history_is_said_by_name() {
    let all = payments(300);
    let project = shop("past/*.parquet");
    let fails = |args: &[&str], wanted: &[&str]| {
        let output = project.run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{args:?}, {wanted}: {said}");
        }
    };
    // No service is touched by a check, and no file is looked for.
    project.ok(&["check"]);
    assert!(project.ok(&["explain", "payments"]).contains("past/*.parquet"));
    let drain = ["stream", "--until-end"];
    let set = [&SET[..], &["--out", "set.parquet"]].concat();
    for args in [&drain[..], &set] {
        fails(args, &["features/sources.sql:1:", "history of source payments", "a folder of Parquet files"]);
    }
    file(&project.path("past/a.parquet"), &all);
    project.ok(&drain);
    project.ok(&set);
    // A row without a time, in a file that was right before.
    let mut wrong = all.clone();
    wrong[130]["at"] = Json::Null;
    file(&project.path("past/b.parquet"), &wrong[100..]);
    for args in [&drain[..], &set] {
        fails(args, &["history of source payments, b.parquet, row 31: `at` is NULL"]);
    }
    std::fs::write(project.path("past/b.parquet"), "junk").unwrap();
    for args in [&drain[..], &set] {
        fails(args, &["history of source payments, b.parquet: can't read"]);
    }
    std::fs::remove_file(project.path("past/b.parquet")).unwrap();
    project.ok(&drain);
    project.ok(&set);
}
