//! A source that keeps so much history: what is older goes from the archive, and whatever needs it is refused by name from then on.

use std::fmt::Write;
use std::fs::File;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tidemark_engine::source::{Contract, Encoder, EventLog};

use crate::support::{Project, files_below, read, text};

const DAY: i64 = 86_400_000_000;
const MINUTE: i64 = 60_000_000;
const DEVICES: i64 = 5;
const CONTRACT: &str = r#"{"type": "record", "name": "Ping", "fields": [{"name": "device", "type": "long"}, {"name": "size", "type": "long"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
const SOURCE: &str = "CREATE SOURCE pings WITH (schema = 'pings.v1', timestamp = 'at', retention = '5 days');";

fn view(name: &str, frame: &str) -> String {
    // Reads reach far back; snapshots wait for late events.
    let options = if name == "daily" { "" } else { "WITH (lateness = '100 days')" };
    format!(
        "CREATE FEATURE VIEW {name} {options} AS SELECT device, COUNT(*) OVER w AS n, SUM(size) OVER w AS s FROM pings
         WINDOW w AS (PARTITION BY device ORDER BY at RANGE BETWEEN {frame} PRECEDING AND CURRENT ROW);
         CREATE FEATURE SERVICE {name}_v1 (device BIGINT) AS SELECT v.n, v.s FROM request LEFT JOIN {name} v ON v.device = request.device;"
    )
}

fn today() -> i64 {
    chrono::Utc::now().timestamp_micros().div_euclid(DAY) * DAY
}

fn instant(at: i64) -> String {
    chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// Days of pings, twenty each in the first minutes of the day; none five days ago, so that it is clear which go, whatever the time of day.
const DAYS: [i64; 8] = [9, 8, 7, 6, 4, 3, 2, 0];

pub fn project() -> Project {
    Project::new(&[
        ("schemas/pings.v1.avsc", CONTRACT),
        (
            "features/pings.sql",
            &format!("{SOURCE}\n{}\n{}", view("seen", "INTERVAL '1 day'"), view("daily", "INTERVAL '1 day'")),
        ),
    ])
}

/// Each day is archived when it is over.
pub fn stream(project: &Project) {
    let encoder = Encoder::new(Contract::parse("pings.v1", CONTRACT).unwrap().into());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir_all(project.path("data")).unwrap();
    for day in DAYS {
        let ping = |i: i64| {
            let at = today() - day * DAY + i * 1_000_000;
            (at, encoder.encode(&json!({"device": i % DEVICES, "size": day * 100 + i, "at": at})).unwrap())
        };
        let mut pings: Vec<(i64, Bytes)> = (0..20).map(ping).collect();
        pings.insert(7, (pings[7].0, Bytes::from_static(b"no ping")));
        let log = EventLog::open(project.path("data/log.redb")).unwrap();
        runtime.block_on(log.append("pings", 0, pings)).unwrap();
        drop(log);
        project.ok(&["stream", "--until-end"]);
    }
}

/// The newest event that goes.
fn last_gone() -> i64 {
    today() - 6 * DAY + 19 * 1_000_000
}

/// Rows of every device, half an hour into some days.
fn spine(project: &Project, days: impl Iterator<Item = i64>) -> usize {
    let (mut spine, mut rows) = (String::from("device,at\n"), 0);
    for day in days {
        for device in 0..=DEVICES {
            writeln!(spine, "{device},{}", instant(today() - day * DAY + 30 * MINUTE)).unwrap();
            rows += 1;
        }
    }
    project.write("spine.csv", spine);
    rows
}

const SET: [&str; 9] =
    ["training-set", "--spine", "spine.csv", "--service", "seen_v1", "--timestamp", "at", "--out", "set.parquet"];

fn set(project: &Project) -> RecordBatch {
    project.ok(&SET);
    let rows = read(&project.path("set.parquet"));
    concat_batches(&rows[0].schema(), &rows).unwrap()
}

fn refused(project: &Project, args: &[&str]) -> String {
    let output = project.run(args);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    said
}

/// What comes of a removal, wherever the archive is: what is still made is what was made before.
pub fn forgets_by_name(project: &Project) {
    let rows = spine(project, (0..=4).rev());
    let before = set(project);
    assert_eq!(before.num_rows(), rows);
    let said = project.ok(&["compact"]);
    let horizon = instant(last_gone() + 1);
    assert!(said.contains(&format!("with 80 events, all before {horizon}, no longer count")), "{said}");
    let said = project.ok(&["archive", "verify"]);
    assert!(said.contains("pings: complete") && said.contains("80 removed by retention"), "{said}");
    assert!(said.contains(&format!("retention removed events before {horizon}; ")), "{said}");
    assert_eq!(set(project), before);
    spine(project, (0..=6).rev());
    let said = refused(project, &SET);
    let row = format!("row 1 of the spine, as of {}, view seen", instant(today() - 6 * DAY + 30 * MINUTE));
    assert!(said.contains(&row) && said.contains(&format!("events of source pings before {horizon}")), "{said}");
    let from = instant(last_gone() + 1 + DAY);
    assert!(said.contains(&format!("expected {from} or later")), "{said}");
    project.ok(&[&SET[..], &["--from", &from]].concat());
}

#[test]
fn what_is_older_goes_and_what_needs_it_is_refused() {
    let project = project();
    project.write("features/ever.sql", view("ever", "UNBOUNDED"));
    stream(&project);
    let archived = || files_below(&project.path("data/offline/archive/pings"), "parquet");
    assert_eq!(archived().len(), DAYS.len());

    // A view that needs all holds it up: one of the project, and one that is served until the project's have taken over.
    let said = refused(&project, &["compact"]);
    let expected = "source pings: its retention of 5 days can't be applied: ever need all events there ever were";
    assert!(said.contains(expected) && said.contains("Nothing was changed"), "{said}");
    std::fs::remove_file(project.path("features/ever.sql")).unwrap();
    let said = refused(&project, &["compact"]);
    assert!(said.contains(expected), "{said}");
    project.ok(&["stream", "--until-end"]);
    forgets_by_name(&project);
    assert_eq!(archived().len(), DAYS.len(), "nothing goes within the grace period");

    let date = |days: i64| instant(today() - days * DAY)[..10].to_owned();
    let (gone, held) = (date(6), date(5));
    let backfill = |from: &str| ["backfill", "--view", "daily", "--from", from, "--to", &held].map(str::to_owned);
    // Its end is a day after, less an instant: the frame begins with the first event of that day.
    let said = refused(&project, &backfill(&gone).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        said.contains(&format!("snapshot of {gone}, as of its end: view daily: its frames reach further back")),
        "{said}"
    );
    let project_ok = |args: &[String]| project.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());

    // An hour later what no longer counts is removed.
    let hour_ago = SystemTime::now() - Duration::from_secs(3601);
    let records = files_below(&project.path("data/offline/archive/pings/_retention"), "json");
    assert_eq!(records.len(), 1);
    for file in &records {
        File::options().append(true).open(file).unwrap().set_modified(hour_ago).unwrap();
    }
    let said = project.ok(&["compact", "--json"]);
    let last: Json = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["removed"], &last["retired"], &last["waiting"]), (&json!(4), &json!(0), &json!(0)), "{said}");
    assert_eq!(archived().len(), DAYS.len() - 4);
    let said = project.json(&["archive", "verify", "--json"]);
    assert_eq!((&said["faults"], &said["below"]), (&json!([]), &json!(0)));
    assert_eq!(said["removed_before"], json!(instant(last_gone() + 1)));
    assert_eq!((&said["partitions"][0]["removed"], &said["partitions"][0]["events"]), (&json!(80), &json!(80)));
    assert!(project_ok(&backfill(&held)).contains("1 date made"));
    std::fs::rename(&archived()[0], project.path("kept")).unwrap();
    let output = project.run(&["archive", "verify"]);
    assert_eq!(output.status.code(), Some(1), "a gap that retention didn't make: {}", text(&output.stdout));
    std::fs::rename(
        project.path("kept"),
        project
            .path("data/offline/archive/pings")
            .join(format!("ingest_date={}/0-0000000000000000084.parquet", date(4))),
    )
    .unwrap();
    project.ok(&["archive", "verify"]);

    // A view that fills from what is left answers what it can, and one that was full answers all that it could before.
    project.write("features/fresh.sql", view("fresh", "INTERVAL '2 days'"));
    let up = project.up(&[]);
    up.wait_until_ready();
    let ask = |service: &str, at: i64| {
        let rows: Vec<Json> = [0, 1, 2, 3, 4, 99].iter().map(|device| json!({"device": device})).collect();
        let (status, answer) = up.post(&format!("/v1/services/{service}"), &json!({"rows": rows, "as_of": at}));
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let edge = last_gone() + 1 + 2 * DAY;
    for (at, outside) in
        [(edge - 1, true), (edge, false), (today() - 4 * DAY + MINUTE, false), (today() - 8 * DAY, true)]
    {
        let answer = ask("fresh_v1", at).to_string();
        assert_eq!(answer.contains("OUTSIDE_RETENTION"), outside, "{}: {answer}", instant(at));
        // Nobody's answer is half an answer: all keys, the one that was never seen too.
        assert_eq!(answer.matches("OUTSIDE_RETENTION").count(), if outside { 6 } else { 0 }, "{answer}");
    }
    let answer = ask("seen_v1", today() - 8 * DAY + MINUTE);
    assert_eq!(answer["rows"][1], json!({"n": 4, "s": 801 + 806 + 811 + 816}), "{answer}");
    assert_eq!(up.stop(), Some(0));
    let rows = spine(&project, 4..5);
    let rows_of = set(&project);
    assert_eq!(rows_of.num_rows(), rows);
    assert!(rows_of["n"].as_primitive::<Int64Type>().values()[..5].iter().all(|n| *n == 4));
    assert!(rows_of["s"].is_null(5));

    // One that had all when it was dropped has it still; a new one can't get it.
    project.write("features/ever.sql", view("ever", "UNBOUNDED"));
    project.ok(&["stream", "--until-end"]);
    project.write("features/always.sql", view("always", "UNBOUNDED"));
    for args in [&["stream", "--until-end"][..], &["backfill", "--view", "always", "--online"]] {
        let said = refused(&project, args);
        assert!(said.contains("view always can't be filled from the archive: it needs all events"), "{said}");
    }
    let mut of_ever = SET;
    of_ever[4] = "always_v1";
    let said = refused(&project, &of_ever);
    assert!(said.contains("view always: it needs all events there ever were"), "{said}");
}
