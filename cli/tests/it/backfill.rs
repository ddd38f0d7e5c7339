//! `tidemark backfill`: snapshots are what a training set gives, and a date is made once, whatever happens in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{Project, files_below, read, text};

const FEATURES: &str = "
CREATE SOURCE pings WITH (connector = 'files', location = 'pings.csv', timestamp = 'at');
CREATE FEATURE VIEW seen AS
SELECT COUNT(*) OVER day AS pings_24h, device, SUM(size) OVER day AS bytes_24h, SUM(size) OVER ever AS bytes,
  LAST_VALUE(kind) OVER day AS last_kind
FROM pings
WINDOW day AS (PARTITION BY device ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW),
       ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE device_v1 (device BIGINT) AS
SELECT v.pings_24h, v.bytes_24h, v.bytes, v.last_kind FROM request LEFT JOIN seen v ON v.device = request.device;
";

const DAY: i64 = 86_400_000_000;
/// 2024-05-01T00:00:00Z
const START: i64 = 1_714_521_600_000_000;
const DATES: i64 = 20;

fn project(events: usize) -> Project {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut pings = String::from("device,at,size,kind\n");
    for _ in 0..events {
        // Some at the very end of a date, or the beginning of the next one.
        let at = match random.random_range(0..10) {
            0 => START + random.random_range(1..DATES) * DAY - random.random_range(0..2),
            _ => START + random.random_range(0..DATES * DAY),
        };
        let at = chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339();
        let device = if random.random_bool(0.01) { String::new() } else { random.random_range(0..300).to_string() };
        let (size, kind) = (random.random_range(0..1000), random.random_range(0..5));
        writeln!(pings, "{device},{at},0.{size},k{kind}").unwrap();
    }
    Project::new(&[("features/devices.sql", FEATURES), ("pings.csv", &pings)])
}

const BACKFILL: [&str; 7] = ["backfill", "--view", "seen", "--from", "2024-05-03", "--to", "2024-05-18"];

/// The rows of each date, and where they lie.
fn snapshots(project: &Project) -> BTreeMap<PathBuf, RecordBatch> {
    let folder = project.path("data/offline/snapshots");
    let rows = |file: &PathBuf| {
        let batches = read(file);
        concat_batches(&batches[0].schema(), &batches).unwrap()
    };
    files_below(&folder, "parquet")
        .into_iter()
        .map(|file| (file.strip_prefix(&folder).unwrap().to_owned(), rows(&file)))
        .collect()
}

#[test]
fn snapshots_hold_what_a_training_set_holds_and_are_made_once() {
    let project = project(6_000);
    let said = project.ok(&BACKFILL);
    assert!(said.contains("16 dates made, 0 there already"), "{said}");
    let made = snapshots(&project);
    assert_eq!(made.len(), 16);
    assert_eq!(made.keys().next().unwrap(), &PathBuf::from("seen/date=2024-05-03/part-0.parquet"));

    // Every entity at every date's end, asked one by one.
    let mut spine = String::from("device,at\n");
    for rows in made.values() {
        let devices = rows["device"].as_primitive::<Int64Type>();
        let times = rows["snapshot_time"].as_primitive::<TimestampMicrosecondType>().values();
        for (device, at) in devices.iter().zip(times) {
            let at = chrono::DateTime::from_timestamp_micros(*at).unwrap().to_rfc3339();
            writeln!(spine, "{},{at}", device.unwrap()).unwrap();
        }
    }
    project.write("spine.csv", spine);
    project.ok(&[
        "training-set",
        "--spine",
        "spine.csv",
        "--service",
        "device_v1",
        "--timestamp",
        "at",
        "--out",
        "set.parquet",
    ]);
    let set = read(&project.path("set.parquet"));
    let set = concat_batches(&set[0].schema(), &set).unwrap();
    let all = concat_batches(&made.values().next().unwrap().schema(), made.values()).unwrap();
    for column in ["device", "pings_24h", "bytes_24h", "bytes", "last_kind"] {
        assert_eq!(&all[column], &set[column], "{column}");
    }
    let names: Vec<&str> = all.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["device", "snapshot_time", "pings_24h", "bytes_24h", "bytes", "last_kind"]);
    // Nobody is missing: whoever had an event by the end of the last date.
    let last = made.values().last().unwrap();
    let there: BTreeSet<i64> = last["device"].as_primitive::<Int64Type>().values().iter().copied().collect();
    let pings = std::fs::read_to_string(project.path("pings.csv")).unwrap();
    let by_then = |line: &&str| line.split(',').nth(1).is_some_and(|at| at < "2024-05-19");
    let seen: BTreeSet<i64> =
        pings.lines().skip(1).filter(by_then).filter_map(|line| line.split(',').next()?.parse().ok()).collect();
    assert_eq!(there, seen);

    let said = project.ok(&BACKFILL);
    assert!(said.contains("0 dates made, 16 there already"), "{said}");
    let further = ["backfill", "--view", "seen", "--from", "2024-05-10", "--to", "2024-05-20", "--parallel", "2"];
    let said = project.run(&further);
    assert!(text(&said.stdout).contains("2 dates made, 9 there already"), "{}", text(&said.stdout));
    assert_eq!(text(&said.stderr).lines().filter(|line| line.contains(" left")).count(), 2, "{}", text(&said.stderr));
    let events = project.ok(&[&["--json"][..], &BACKFILL, &["--force"]].concat());
    assert_eq!(events.lines().filter(|line| line.contains("\"event\":\"made\"")).count(), 16, "{events}");
    // What can't be read isn't made; a file of another date is nobody's business.
    std::fs::write(project.path("data/offline/snapshots/seen/date=2024-05-05/part-0.parquet"), "no Parquet").unwrap();
    std::fs::write(project.path("data/offline/snapshots/seen/date=2024-05-20/part-0.parquet"), "").unwrap();
    assert!(project.ok(&BACKFILL).contains("1 date made, 15 there already"));
    // Another version of the view makes its own.
    project.write("features/devices.sql", FEATURES.replace("INTERVAL '1 day'", "INTERVAL '2 days'"));
    assert!(project.ok(&BACKFILL).contains("16 dates made, 0 there already"));
    std::fs::remove_dir_all(project.path("data/offline/snapshots/seen/date=2024-05-20")).unwrap();
    let date = PathBuf::from("seen/date=2024-05-18/part-0.parquet");
    assert_ne!(snapshots(&project).get(&date), made.get(&date));
}

#[test]
fn a_backfill_that_is_killed_goes_on_where_it_was() {
    let calm = project(40_000);
    let since = Instant::now();
    calm.ok(&BACKFILL);
    let whole = since.elapsed();
    let hit = project(40_000);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut kills, mut partial) = (0, 0);
    for _ in 0..60 {
        if kills == 10 {
            break;
        }
        if snapshots(&hit).len() == 16 {
            std::fs::remove_dir_all(hit.path("data/offline/snapshots")).unwrap();
        }
        let mut command = hit.command();
        command.args(BACKFILL).args(["--parallel", "2"]).stderr(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Anywhere: before anything is read, in the middle of a file, after the last one.
        let until = Instant::now() + whole.mul_f64(random.random_range(0.05..1.0));
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        partial += usize::from((1..16).contains(&snapshots(&hit).len()));
    }
    assert_eq!(kills, 10, "so many runs were at work when they were killed");
    hit.ok(&BACKFILL);
    assert_eq!(snapshots(&hit), snapshots(&calm));
    println!("{partial} of the runs left some dates made and others not");
}

#[test]
fn what_can_not_be_is_said() {
    let project = project(10);
    let refused = |args: [&str; 7]| {
        let output = project.run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        text(&output.stderr)
    };
    let said = refused(["backfill", "--view", "sen", "--from", "2024-05-03", "--to", "2024-05-18"]);
    assert!(said.contains("no feature view `sen`") && said.contains("hint") && said.contains("seen"), "{said}");
    let said = refused(["backfill", "--view", "seen", "--from", "2024-05-18", "--to", "2024-05-03"]);
    assert!(said.contains("2024-05-03 is before"), "{said}");
    project.write(
        "features/devices.sql",
        FEATURES
            .replace("LAST_VALUE(kind) OVER day AS last_kind", "COUNT(*) OVER day AS snapshot_time")
            .replace(", v.last_kind", ""),
    );
    let said = refused(["backfill", "--view", "seen", "--from", "2024-05-03", "--to", "2024-05-18"]);
    assert!(said.contains("snapshot_time") && said.contains("another name"), "{said}");
    let said = refused(["backfill", "--view", "seen", "--from", "2024-05-18", "--to", "2999-01-01"]);
    assert!(said.contains("may still come") && said.contains("or earlier"), "{said}");
}
