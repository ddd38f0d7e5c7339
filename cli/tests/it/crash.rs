//! `kill -9` at any moment: start again, and nothing is lost, nothing counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use tidemark_engine::source::EventLog;

use crate::support::{Process, Project, Up, kill, parquet, shop_project};

const KILLS: usize = 22;
const EVENTS: usize = 3_000;
pub const USERS: i64 = 40;
const PARTITIONS: u32 = 3;
const SOURCES: [&str; 2] = ["payments", "plain"];
pub const MINUTE: i64 = 60_000_000;
/// 2024-05-01T08:00:00Z
pub const START: i64 = 1_714_550_400_000_000;
/// Commits often: the less time between them, the more of them are interrupted.
const COMMITS: &[&str] = &["--commit-every", "0.05"];
pub const SPAN: i64 = 4 * 60 * MINUTE;

/// The same events in a source that names no `event_id`: there, only offsets keep a replay from counting twice.
const PLAIN: &str = "CREATE SOURCE plain WITH (schema = 'payments.v1', timestamp = 'at', partitions = 2);\n";
pub const PLAIN_VIEWS: &str = "
CREATE FEATURE VIEW plain_hour AS
SELECT user_id, COUNT(*) OVER hour AS payments_1h, SUM(amount) OVER hour AS spend_1h FROM plain
WINDOW hour AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW plain_ever AS
SELECT user_id, COUNT(*) OVER ever AS payments, SUM(amount) OVER ever AS spend FROM plain
WINDOW ever AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW plain_tiles WITH (tile = '10 minutes') AS
SELECT shop, COUNT(*) OVER hour AS payments_1h, SUM(amount) OVER hour AS turnover_1h FROM plain
WINDOW hour AS (PARTITION BY shop ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
";

fn project() -> Project {
    let project = shop_project(PARTITIONS);
    project.write("features/plain.sql", PLAIN.to_owned() + PLAIN_VIEWS);
    project
}

/// Runs with another seed if `TIDEMARK_CRASH_SEED` names one.
fn seed() -> u64 {
    std::env::var("TIDEMARK_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

/// Events with ties, out of order, some late by hours, some sent twice.
pub fn events(random: &mut ChaCha8Rng) -> Vec<Json> {
    let mut events: Vec<Json> = vec![];
    for i in 0..EVENTS {
        if i > 10 && random.random_bool(0.03) {
            let again = random.random_range(0..events.len());
            events.push(events[again].clone());
            continue;
        }
        let progress = START + SPAN * i as i64 / EVENTS as i64;
        let late = if random.random_bool(0.05) {
            random.random_range(0..180 * MINUTE)
        } else {
            random.random_range(0..MINUTE)
        };
        let at = (progress - late) / 1_000_000 * 1_000_000;
        let amount = random.random_range(1..100_000) as f64 / 100.0 * if random.random_bool(0.1) { 1e12 } else { 1.0 };
        events.push(json!({
            "id": format!("p{i}"),
            "user_id": random.random_range(0..USERS) * random.random_range(0..2),
            "shop": format!("shop {}", random.random_range(0..8)),
            "amount": amount,
            "note": null,
            "at": at,
        }));
    }
    events
}

/// Pushes batches from `next` on until all are acknowledged or the platform is gone. A batch without an answer is
/// pushed again: nobody knows whether it was taken.
fn push(up: &Up, batches: &[Vec<Json>], next: &mut usize) -> bool {
    while let Some(batch) = batches.get(*next) {
        for source in SOURCES {
            let path = format!("/v1/sources/{source}/events");
            let Some((status, answer)) = up.try_post(&path, &json!({ "events": batch })) else {
                return false;
            };
            assert_eq!((status, &answer["accepted"]), (200, &json!(batch.len())), "{answer}");
        }
        *next += 1;
    }
    true
}

/// When a life of the platform ends.
enum Moment {
    /// This long after the process was started: while it opens its folder, or catches up.
    Starting(Duration),
    /// This long after so many batches were acknowledged: while events come in.
    Serving(usize, Duration),
}

impl Moment {
    fn random(random: &mut ChaCha8Rng) -> Self {
        match random.random_bool(0.3) {
            true => Self::Starting(Duration::from_millis(random.random_range(0..500))),
            false => Self::Serving(random.random_range(1..24), Duration::from_micros(random.random_range(0..80_000))),
        }
    }
}

/// One life of the platform, ended by SIGKILL, whatever it does then.
fn life(project: &Project, moment: &Moment, batches: &[Vec<Json>], next: &mut usize) {
    let kill_after = |after: Duration, process: Process| {
        std::thread::spawn(move || {
            std::thread::sleep(after);
            kill(&process);
        })
    };
    let mut killer = None;
    match moment {
        Moment::Starting(after) => {
            let up = Up::spawn(project, COMMITS, |process| killer = Some(kill_after(*after, process)));
            if let Ok(up) = &up {
                push(up, batches, next);
            }
        }
        Moment::Serving(count, after) => {
            let up = project.up(COMMITS);
            let target = batches.len().min(*next + count);
            assert!(push(&up, &batches[..target], next), "{}", up.logged());
            killer = Some(kill_after(*after, up.process()));
            push(&up, batches, next);
        }
    }
    killer.unwrap().join().unwrap();
}

/// Everything that can be read: each view's values for each key at several instants.
pub fn online(project: &Project) -> BTreeMap<String, Json> {
    let up = project.up(&[]);
    up.wait_until_ready();
    let users: Vec<Json> = (0..USERS).map(|user| json!({ "user_id": user })).collect();
    let shops: Vec<Json> = (0..8).map(|shop| json!({"shop": format!("shop {shop}")})).collect();
    let mut values = BTreeMap::new();
    let views = ["user_spend", "user_last", "user_ever", "plain_hour", "plain_ever"].map(|view| (view, &users));
    for (view, keys) in views.into_iter().chain(["shop_tiles", "plain_tiles"].map(|view| (view, &shops))) {
        for as_of in [START + SPAN / 2, START + SPAN - 7 * MINUTE, START + SPAN, START + SPAN + 50 * MINUTE] {
            let (status, answer) = up.post(&format!("/v1/views/{view}"), &json!({"keys": keys, "as_of": as_of}));
            assert_eq!(status, 200, "{view}: {answer}");
            values.insert(
                format!("{view} {as_of}"),
                json!([answer["rows"], answer["views"][view]["status"], answer["status"]]),
            );
        }
    }
    assert_eq!(up.stop(), Some(0));
    values
}

pub type Row = (String, i64, String, u64, i64);

/// The archive: rows by place, and how often each event is in it.
pub fn archive(project: &Project, source: &str) -> (Vec<(i32, i64)>, BTreeMap<Row, usize>) {
    let mut places = vec![];
    let mut rows: BTreeMap<Row, usize> = BTreeMap::new();
    for batch in parquet(&project.path("data/offline/archive").join(source)) {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (ids, users, shops) = (column("id"), column("user_id"), column("shop"));
        let (amounts, times) = (column("amount"), column("at"));
        let (partitions, offsets) = (column("_partition"), column("_offset"));
        for i in 0..batch.num_rows() {
            places
                .push((partitions.as_primitive::<Int32Type>().value(i), offsets.as_primitive::<Int64Type>().value(i)));
            let row = (
                ids.as_string::<i32>().value(i).to_owned(),
                users.as_primitive::<Int64Type>().value(i),
                shops.as_string::<i32>().value(i).to_owned(),
                amounts.as_primitive::<Float64Type>().value(i).to_bits(),
                times.as_primitive::<TimestampMicrosecondType>().value(i),
            );
            *rows.entry(row).or_default() += 1;
        }
    }
    places.sort_unstable();
    (places, rows)
}

/// Every place that the log gave out, which is what the archive must hold, each once.
fn logged(project: &Project, source: &str) -> Vec<(i32, i64)> {
    let log = EventLog::open(project.path("data/log.redb")).unwrap();
    let partitions = log.partitions(source).unwrap();
    partitions
        .into_iter()
        .flat_map(|p| (0..log.end_offset(source, p).unwrap()).map(move |offset| (p, offset)))
        .collect()
}

#[test]
fn kill_9_at_random_moments_changes_nothing() {
    let seed = seed();
    println!("reproduce with TIDEMARK_CRASH_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let events = events(&mut random);
    let mut batches: Vec<Vec<Json>> = vec![];
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        let (batch, more) = rest.split_at(random.random_range(1..=12).min(rest.len()));
        batches.push(batch.to_vec());
        rest = more;
    }

    let killed = project();
    let mut next = 0;
    let mut lives_with_work = 0;
    for _ in 0..KILLS {
        let before = next;
        life(&killed, &Moment::random(&mut random), &batches, &mut next);
        lives_with_work += usize::from(next > before);
    }
    println!(
        "{KILLS} kills, {lives_with_work} of them while events came in; {next} of {} batches were in by then",
        batches.len()
    );
    assert!(lives_with_work > KILLS / 3, "too few kills while events came in; seed {seed}");
    let up = killed.up(&[]);
    assert!(push(&up, &batches, &mut next), "{}", up.logged());
    assert_eq!(up.stop(), Some(0));
    killed.ok(&["stream", "--until-end"]);

    // The same log, absorbed by a platform that was never killed: all must be equal.
    let calm = project();
    std::fs::create_dir_all(calm.path("data")).unwrap();
    std::fs::copy(killed.path("data/log.redb"), calm.path("data/log.redb")).unwrap();
    calm.ok(&["stream", "--until-end"]);
    let (there, here) = (online(&calm), online(&killed));
    for (what, expected) in &there {
        assert_eq!(here.get(what), Some(expected), "{what}; seed {seed}");
    }
    for view in ["user_spend", "plain_hour"] {
        let counts = |v: &Json| v[0].as_array().unwrap().iter().any(|row| row["payments_1h"].as_i64() > Some(0));
        assert!(there.iter().any(|(what, v)| what.starts_with(view) && counts(v)), "{view} is compared over nothing");
    }
    for source in SOURCES {
        let archived = archive(&killed, source);
        assert_eq!(archived, archive(&calm, source), "{source}; seed {seed}");
        assert_eq!(archived.0, logged(&killed, source), "the archive holds every place of the log once; seed {seed}");
    }

    // The same events, pushed to a platform that was never killed. A batch whose answer a kill cut off was pushed again:
    // without an `event_id` that counts twice, with one it must not.
    let whole = project();
    let up = whole.up(&[]);
    assert!(push(&up, std::slice::from_ref(&events), &mut 0));
    assert_eq!(up.stop(), Some(0));
    whole.ok(&["stream", "--until-end"]);
    for (what, expected) in online(&whole).iter().filter(|(what, _)| !what.starts_with("plain")) {
        assert_eq!(here.get(what), Some(expected), "{what}; seed {seed}");
    }
    let (there, here) = (archive(&whole, "payments").1, archive(&killed, "payments").1);
    let distinct = |rows: &BTreeMap<Row, usize>| rows.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(distinct(&there), distinct(&here), "seed {seed}");
    let extra: usize = here.iter().map(|(row, n)| n - there.get(row).copied().unwrap_or(0)).sum();
    assert!(extra <= KILLS * 12, "{extra} rows more than were sent; seed {seed}");
}
