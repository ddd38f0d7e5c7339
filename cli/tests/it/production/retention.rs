//! Retention beside a stream that runs: views that fill behind what is gone serve what a training set gets, or both refuse.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tidemark_engine::source::Encoder;

use super::harness::{PARTITIONS, Shop, Topic, caught_up};
use crate::past;
use crate::support::{CONTRACT, Up, read, text};

const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const USERS: i64 = 12;

/// Days ago that have events, sixty each in the first hours of the day; none five days ago, so that it is clear which go, whatever the time of
/// day.
const DAYS: [i64; 7] = [9, 8, 7, 6, 4, 3, 2];
/// The last day that goes.
const GONE: i64 = 6;
/// Days ago of which a history has the events.
const HISTORY: std::ops::RangeInclusive<i64> = 10..=20;

const KEEPING: [&str; 3] = ["--commit-every", "0.1", "--redis-keep-idle"];
/// Where the changed definitions are, and the data that both versions share.
const NEXT: [&str; 4] = ["--features", "next/features", "--data", "data"];

fn today() -> i64 {
    chrono::Utc::now().timestamp_micros().div_euclid(DAY) * DAY
}

fn instant(at: i64) -> String {
    chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn view(name: &str, days: i64, count: &str) -> String {
    format!(
        "CREATE FEATURE VIEW {name} WITH (lateness = '100 days') AS SELECT user_id, {count} AS n, SUM(amount) OVER w AS s FROM payments
         WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '{days} days' PRECEDING AND CURRENT ROW);
         CREATE FEATURE SERVICE {name}_v1 (user_id BIGINT) AS SELECT v.n, v.s FROM request LEFT JOIN {name} v ON v.user_id = request.user_id;"
    )
}

/// The payments of a day, some of which come a day and more late. Amounts add up exactly.
fn payments(today: i64, day: i64) -> Vec<Json> {
    let payment = |i: i64| {
        let late = if i % 11 == 5 { 30 * HOUR } else { 0 };
        json!({
            "id": format!("{day}-{i}"), "user_id": i * 7 % USERS, "shop": "shop 1", "amount": (day * 100 + i) as f64 / 4.0,
            "note": null, "at": today - day * DAY + i * MINUTE - late,
        })
    };
    (0..60).map(payment).collect()
}

async fn send(topic: &mut Topic, encoder: &Encoder, payments: &[Json], at: i64) {
    let message = |payment: &Json| {
        let partition = payment["user_id"].as_i64().unwrap() % i64::from(PARTITIONS);
        (partition as i32, Some(encoder.encode(payment).unwrap()))
    };
    let mut messages: Vec<(i32, Option<Bytes>)> = payments.iter().map(message).collect();
    messages.insert(3, (0, Some(Bytes::from_static(b"no payment"))));
    topic.send_at(at / 1000, messages).await;
}

/// Rows of users and instants.
type Rows = Vec<(i64, i64)>;

/// What a service answers, by row: none where it refuses to.
fn served(up: &Up, view: &str, rows: &Rows) -> Vec<Option<(i64, Option<f64>)>> {
    let users: Vec<Json> = rows.iter().map(|(user, _)| json!({"user_id": user})).collect();
    let instants: Vec<String> = rows.iter().map(|(_, at)| instant(*at)).collect();
    let (status, answer) = up.post(&format!("/v1/services/{view}_v1"), &json!({"rows": users, "as_of": instants}));
    assert_eq!(status, 200, "{answer}");
    let statuses = answer["views"][view]["status"].as_array().unwrap();
    let answered = answer["rows"].as_array().unwrap().iter().zip(statuses).map(|(row, status)| match status.as_str() {
        Some("OUTSIDE_RETENTION") => None,
        _ => Some((row["n"].as_i64().unwrap(), row["s"].as_f64())),
    });
    answered.collect()
}

/// A training set of rows, or what is said instead.
fn trained(shop: &Shop, view: &str, rows: &Rows) -> Result<Vec<(i64, Option<f64>)>, String> {
    let mut spine = String::from("user_id,label_time\n");
    rows.iter().for_each(|(user, at)| writeln!(spine, "{user},{}", instant(*at)).unwrap());
    shop.project.write("spine.csv", spine);
    let service = format!("{view}_v1");
    let what = ["training-set", "--spine", "spine.csv", "--service", &service, "--timestamp", "label_time"];
    let output = shop.command().args(NEXT).args(what).args(["--out", "set.parquet"]).output().unwrap();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let set = read(&shop.project.path("set.parquet"));
    let set: RecordBatch = concat_batches(&set[0].schema(), &set).unwrap();
    let (n, s) = (set["n"].as_primitive::<Int64Type>(), set["s"].as_primitive::<Float64Type>());
    Ok((0..set.num_rows()).map(|row| (n.value(row), s.is_valid(row).then(|| s.value(row)))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_behind_a_retention_is_what_is_trained_on_or_both_refuse() {
    let today = today();
    let mut topic = Topic::new("retention").await;
    let shop = Shop::new(&topic, "retention");
    let encoder = topic.version(CONTRACT);
    let history: Vec<Json> = HISTORY.rev().flat_map(|day| payments(today, day)).collect();
    past::files(&shop.project.path("past"), &history);
    let source = format!(
        "CREATE SOURCE payments WITH (schema = 'payments.v1', timestamp = 'at', topic = '{}', dead_letter_topic = '{}-payments',
         history = '{}/*.parquet', retention = '5 days');",
        topic.name,
        shop.name,
        shop.project.path("past").display()
    );
    // One view doesn't change, one does, and one is new. Each counts each payment as often as it says.
    const VIEWS: [(&str, i64, i64); 3] = [("same", 1, 1), ("changed", 1, 2), ("fresh", 2, 1)];
    let same = view("same", 1, "COUNT(*) OVER w");
    let before = format!("{same}{}", view("changed", 1, "COUNT(*) OVER w"));
    let next = format!("{same}{}{}", view("changed", 1, "2 * COUNT(*) OVER w"), view("fresh", 2, "COUNT(*) OVER w"));
    for (folder, views) in [("", &before), ("next/", &next)] {
        shop.project.write(&format!("{folder}schemas/payments.v1.avsc"), CONTRACT);
        shop.project.write(&format!("{folder}features/sources.sql"), &source);
        shop.project.write(&format!("{folder}features/views.sql"), views);
        shop.project.write(&format!("{folder}features/services.sql"), "");
    }

    // Each day comes on its day, and is archived then.
    let old = shop.engine_with(0, &KEEPING);
    let mut all = history;
    for day in DAYS {
        let of_day = payments(today, day);
        send(&mut topic, &encoder, &of_day, today - day * DAY + HOUR).await;
        all.extend(of_day);
        old.wait_until("a day", |up| caught_up(up) && shop.absorbed(&topic, up));
    }
    old.wait_until_ready();
    old.wait_until("the release", |_| shop.project.path("data/offline/releases/live.json").exists());

    let said = shop.ok(&["compact"]);
    let said = said.as_array().and_then(|lines| lines.last()).unwrap_or(&said);
    let gone = DAYS.iter().filter(|day| **day >= GONE).count();
    assert_eq!(said["retired"], json!(60 * gone), "{said}");
    let horizon = today - GONE * DAY + 59 * MINUTE + 1;
    assert_eq!(shop.ok(&["archive", "verify"])["removed_before"], json!(instant(horizon)));
    // The stream goes on beside it.
    let now = chrono::Utc::now().timestamp_micros();
    let of_day = payments(today, 0).into_iter().filter(|p| p["at"].as_i64().unwrap() < now).collect::<Vec<_>>();
    send(&mut topic, &encoder, &of_day, now).await;
    all.extend(of_day);
    old.wait_until("what came since", |up| caught_up(up) && shop.absorbed(&topic, up));

    let truth = |days: i64, (user, at): (i64, i64)| {
        let covered =
            |p: &&Json| p["user_id"] == json!(user) && (at - days * DAY..=at).contains(&p["at"].as_i64().unwrap());
        let amounts: Vec<f64> = all.iter().filter(covered).map(|p| p["amount"].as_f64().unwrap()).collect();
        (amounts.len() as i64, (!amounts.is_empty()).then(|| amounts.iter().sum::<f64>()))
    };
    // A roll-out: whenever the new ones answer, they answer right, or not.
    let new = shop.engine_with(1, &[&KEEPING[..], &NEXT].concat());
    let users: Vec<Json> = (0..USERS).map(|user| json!({"user_id": user})).collect();
    let answers = |up: &Up, view: &str| up.post(&format!("/v1/services/{view}_v1"), &json!({"rows": users})).0 == 200;
    new.wait_until("answers as before", |up| answers(up, "same") && answers(up, "changed"));
    assert_eq!(old.stop(), Some(0));
    let recent: Rows = (0..USERS).map(|user| (user, today - 2 * DAY + 40 * MINUTE)).collect();
    let edge: Rows = (0..USERS).map(|user| (user, horizon + DAY)).collect();
    new.wait_until("an answer of the new view", |up| answers(up, "fresh"));
    for (row, answer) in recent.iter().zip(served(&new, "fresh", &recent)) {
        assert_eq!(answer, Some(truth(2, *row)), "{row:?}");
    }
    assert!(served(&new, "fresh", &edge).iter().all(Option::is_none), "a frame of two days reaches behind it");
    let filled = |up: &Up| shop.owned_by(up) && caught_up(up) && up.metric("tidemark_view_filling", "") == 0.0;
    new.wait_until("that all views are filled", filled);
    new.wait_until_ready();

    // Through all days, those of the history too, at the edges of what is left, and users who were never seen.
    let edges = |days: i64| [horizon + days * DAY - 1, horizon + days * DAY];
    let anywhere = (0..=21).flat_map(|day| [1, 20, 47].map(|minute| today - day * DAY + minute * MINUTE + day));
    let instants: Vec<i64> = anywhere.chain(edges(1)).chain(edges(2)).collect();
    let rows: Rows = instants.iter().flat_map(|at| (0..=USERS).map(|user| (user, *at))).collect();
    let in_history = |at: i64| at < today - (HISTORY.start() - 1) * DAY;
    for (name, days, times) in VIEWS {
        let answers = served(&new, name, &rows);
        let mut refused = vec![];
        let mut answered = vec![];
        for (row, answer) in rows.iter().zip(&answers) {
            let (n, sum) = truth(days, *row);
            let needs_gone = row.1 - days * DAY < horizon;
            match answer {
                Some(answer) => {
                    assert_eq!(*answer, (times * n, sum), "{name}: {row:?}");
                    // What was full before has all that it had.
                    assert!(name == "same" || !needs_gone, "{name}: {row:?} was answered");
                }
                None => assert!(name != "same" && needs_gone, "{name}: {row:?} was refused"),
            }
            // Offline no view has what is gone, also not where a history has what is older: between the two something is missing.
            if needs_gone { refused.push(*row) } else { answered.push((*row, *answer)) }
        }
        let set = trained(&shop, name, &answered.iter().map(|(row, _)| *row).collect()).unwrap();
        let online: Vec<_> = answered.iter().map(|(_, answer)| answer.unwrap()).collect();
        assert_eq!(set, online, "{name}");
        assert!(online.iter().filter(|(n, _)| *n > 0).count() > 100, "compared over nothing");
        let of_history = refused.iter().filter(|(user, at)| in_history(*at) && truth(days, (*user, *at)).0 > 0);
        let of_history = of_history.copied().collect::<Vec<_>>();
        assert!(of_history.len() > 100, "the history has what these need");
        for row in [refused[0], of_history[0], of_history[of_history.len() - 1], (3, horizon + days * DAY - 1)] {
            let mut with: Rows = answered.iter().map(|(row, _)| *row).collect();
            with.insert(7, row);
            let said = trained(&shop, name, &with).unwrap_err();
            let place = format!("row 8 of the spine, as of {}, view {name}: ", instant(row.1));
            assert!(said.contains(&place) && said.contains("removed from its archive by retention"), "{said}");
        }
    }
    assert_eq!(new.stop(), Some(0));
}
