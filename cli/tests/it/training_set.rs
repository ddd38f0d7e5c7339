//! What `tidemark training-set` can be asked for, and that memory is no part of the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use serde_json::Value as Json;

use crate::parity::{SPINE, payment, push};
use crate::support::{Project, files_below, parquet, read, shop_project, text};

const FEATURES: &str = "
CREATE SOURCE pings WITH (connector = 'files', location = 'pings.parquet', timestamp = 'at');
CREATE FEATURE VIEW seen AS
SELECT device, COUNT(*) OVER ever AS pings, SUM(size) OVER hour AS bytes, MAX(size) OVER hour AS largest FROM pings
WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
       hour AS (PARTITION BY device ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW small AS
SELECT device, COUNT(*) OVER ever AS small_pings FROM pings WHERE size < 0.5
WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE device_v1 (device BIGINT) AS
SELECT v.pings, v.bytes, v.largest, s.small_pings
FROM request LEFT JOIN seen v ON v.device = request.device LEFT JOIN small s ON s.device = request.device;
";

const LABELS_SQL: &str = "
CREATE EXTERNAL TABLE labels STORED AS PARQUET LOCATION 'labels/';
CREATE TRAINING SET small_labels WITH (service = 'device_v1', timestamp = 'at') AS
SELECT device, at, size FROM labels WHERE size < 0.5;
";

const EVENTS: usize = 400_000;
const LABELS: usize = 80_000;

/// Spread over places without a pattern that anything could lean on.
fn mixed(i: usize) -> usize {
    let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20) as usize
}

/// A quarter of everything is device 0's.
fn device(i: usize) -> i64 {
    if mixed(i).is_multiple_of(4) { 0 } else { (mixed(i) % 5_000) as i64 }
}

fn at(i: usize) -> i64 {
    1_700_000_000_000_000 + (mixed(i + 7) % 86_400) as i64 * 1_000_000
}

fn size(i: usize) -> f64 {
    (mixed(i + 3) % 1_000) as f64 / 1_000.0
}

fn write(project: &Project, name: &str, rows: usize, shift: usize) -> RecordBatch {
    let rows = shift..shift + rows;
    let times = rows.clone().map(at).collect::<Vec<_>>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(rows.clone().map(device).collect::<Int64Array>())),
        ("at", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ("size", Arc::new(rows.map(size).collect::<Float64Array>())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(project.path(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    batch
}

fn rows(project: &Project, name: &str) -> RecordBatch {
    let batches = read(&project.path(name));
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// What a file's footer says of itself.
fn footer(project: &Project, name: &str, key: &str) -> Option<String> {
    let file = std::fs::File::open(project.path(name)).unwrap();
    let pairs = SerializedFileReader::new(file).unwrap().metadata().file_metadata().key_value_metadata().cloned();
    pairs.iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
}

const SET: [&str; 7] = ["training-set", "--spine", "labels.parquet", "--service", "device_v1", "--timestamp", "at"];

#[test]
fn ten_times_the_memory_limit_gives_the_same_set_and_says_what_it_spilled() {
    let project = Project::new(&[("features/devices.sql", FEATURES)]);
    let events = write(&project, "pings.parquet", EVENTS, 0);
    let labels = write(&project, "labels.parquet", LABELS, EVENTS);
    let whole = project.json(&[&["--json"][..], &SET, &["--out", "whole.parquet"]].concat());
    assert_eq!((whole["rows"].as_u64(), whole["spilled"].as_u64()), (Some(LABELS as u64), Some(0)));

    // A row of events is some fifty bytes on its way, twice, since there are two views.
    let limited = [&SET[..], &["--out", "limited.parquet", "--memory-limit", "3MB"]].concat();
    let said = project.ok(&limited);
    assert!(said.contains("went through temporary files"), "{said}");
    let limited = project.json(&[&["--json"][..], &limited].concat());
    assert!(limited["spilled"].as_u64().unwrap() > 10_000_000, "{limited}");
    let (whole, limited) = (rows(&project, "whole.parquet"), rows(&project, "limited.parquet"));
    assert_eq!(whole, limited);

    // In the spine's order, and right: the events of the hottest device, counted by hand.
    assert_eq!(&whole["device"], &labels["device"]);
    let of = |batch: &RecordBatch, name: &str| batch[name].as_primitive::<Int64Type>().values().to_vec();
    let times = |batch: &RecordBatch| batch["at"].as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let sizes = events["size"].as_primitive::<Float64Type>().values().to_vec();
    let hot = of(&events, "device").into_iter().zip(times(&events)).zip(sizes).filter(|((device, _), _)| *device == 0);
    let hot: Vec<(i64, f64)> = hot.map(|((_, at), size)| (at, size)).collect();
    let (pings, small) = (of(&whole, "pings"), of(&whole, "small_pings"));
    let asked = of(&whole, "device").into_iter().zip(times(&whole)).enumerate().filter(|(_, (device, _))| *device == 0);
    for (row, (_, at)) in asked.step_by(97) {
        let before: Vec<f64> = hot.iter().filter(|(time, _)| *time <= at).map(|(_, size)| *size).collect();
        assert_eq!(pings[row] as usize, before.len(), "row {row}");
        assert_eq!(small[row] as usize, before.iter().filter(|size| **size < 0.5).count(), "row {row}");
    }
}

#[test]
fn rows_between_instants_a_sample_of_them_and_csv() {
    let project = Project::new(&[("features/devices.sql", FEATURES)]);
    write(&project, "pings.parquet", 5_000, 0);
    write(&project, "labels.parquet", 2_000, 5_000);
    project.ok(&[&SET[..], &["--out", "whole.parquet"]].concat());
    let whole = rows(&project, "whole.parquet");
    let times = whole["at"].as_primitive::<TimestampMicrosecondType>().values().to_vec();

    // 2023-11-14T22:13:20Z is the first instant that there can be.
    let (from, to) = ("2023-11-15T01:00:00Z", "2023-11-15T07:30:00Z");
    let between = [&SET[..], &["--out", "some.parquet", "--from", from, "--to", to]].concat();
    project.ok(&between);
    let micros = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
    let kept = times.iter().map(|at| Some(micros(from) <= *at && *at < micros(to))).collect();
    let expected = arrow::compute::filter_record_batch(&whole, &kept).unwrap();
    assert!(expected.num_rows() > 100 && expected.num_rows() < 1_000);
    assert_eq!(rows(&project, "some.parquet"), expected);
    let of = |key: &str| footer(&project, "some.parquet", key);
    assert_eq!(of("tidemark.spine.from").as_deref(), Some("2023-11-15T01:00:00+00:00"));
    assert_eq!(of("tidemark.rows"), Some(expected.num_rows().to_string()));

    // The same rows each time, each with the values that it has in the whole set.
    let sample = |out| project.ok(&[&SET[..], &["--out", out, "--sample", "0.1"]].concat());
    sample("a.parquet");
    sample("b.parquet");
    let (a, b) = (rows(&project, "a.parquet"), rows(&project, "b.parquet"));
    assert_eq!(a, b);
    assert!((120..280).contains(&a.num_rows()), "{}", a.num_rows());
    let mut rest = 0..whole.num_rows();
    let mut found = |row: usize| rest.any(|at| whole.slice(at, 1) == a.slice(row, 1));
    assert!((0..a.num_rows()).all(&mut found), "a row of the sample is none of the set's");

    project.ok(&[&SET[..], &["--out", "some.csv", "--format", "csv", "--from", from, "--to", to]].concat());
    let csv = std::fs::read_to_string(project.path("some.csv")).unwrap();
    assert_eq!(csv.lines().next(), Some("device,at,size,pings,bytes,largest,small_pings"));
    assert_eq!(csv.lines().count(), expected.num_rows() + 1);

    // No row is a header all the same.
    project.ok(&[&SET[..], &["--out", "none.csv", "--format", "csv", "--from", to, "--to", from]].concat());
    let none = std::fs::read_to_string(project.path("none.csv")).unwrap();
    assert_eq!(none.trim_end(), "device,at,size,pings,bytes,largest,small_pings");

    for wrong in [["--from", "soon"], ["--sample", "2"], ["--memory-limit", "much"]] {
        let output = project.run(&[&SET[..], &["--out", "x.parquet"], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(text(&output.stderr).contains("expected"), "{}", text(&output.stderr));
    }
}

/// Several files, several stretches of each: rows have the same numbers each time, so that a sample is the same one.
#[test]
fn the_rows_of_a_spine_of_many_files_keep_their_order() {
    let project = Project::new(&[("features/devices.sql", FEATURES), ("features/labels.sql", LABELS_SQL)]);
    std::fs::create_dir(project.path("labels")).unwrap();
    write(&project, "pings.parquet", 2_000, 0);
    let parts: Vec<RecordBatch> =
        (0..6).map(|i| write(&project, &format!("labels/{i}.parquet"), 300, 300 * i)).collect();
    let all = concat_batches(&parts[0].schema(), &parts).unwrap();
    for out in ["a.parquet", "b.parquet"] {
        project.ok(&["training-set", "small_labels", "--out", out, "--sample", "0.5"]);
    }
    assert_eq!(rows(&project, "a.parquet"), rows(&project, "b.parquet"));
    project.ok(&["training-set", "small_labels", "--out", "all.parquet"]);
    let kept = all["size"].as_primitive::<Float64Type>().iter().map(|size| size.map(|size| size < 0.5)).collect();
    assert_eq!(
        &rows(&project, "all.parquet")["device"],
        &arrow::compute::filter_record_batch(&all, &kept).unwrap()["device"]
    );
}

#[test]
fn a_training_set_names_the_offsets_that_it_was_made_from() {
    let project = shop_project(2);
    let events: Vec<Json> = (0..40).map(|i| payment(&i.to_string(), &format!("2024-05-01T10:{i:02}:00Z"))).collect();
    push(&project, &["--commit-every", "0.1"], &events);
    project.ok(&["stream", "--until-end"]);
    project.write("labels.csv", SPINE);
    project.ok(&[
        "training-set",
        "--spine",
        "labels.csv",
        "--service",
        "score",
        "--timestamp",
        "at",
        "--out",
        "a.parquet",
    ]);
    let mut ends = BTreeMap::new();
    for batch in parquet(&project.path("data/offline/archive/payments")) {
        let partitions = batch["_partition"].as_primitive::<Int32Type>().values();
        for (partition, offset) in partitions.iter().zip(batch["_offset"].as_primitive::<Int64Type>().values()) {
            let end = ends.entry(*partition).or_insert(*offset);
            *end = (*end).max(*offset);
        }
    }
    let expected: Vec<String> = ends.iter().map(|(partition, end)| format!("{partition}:0-{end}")).collect();
    assert!(!expected.is_empty());
    assert_eq!(footer(&project, "a.parquet", "tidemark.source.payments.offsets"), Some(expected.join(" ")));
}

#[test]
fn a_difference_between_two_sets_is_explained() {
    let project = shop_project(1);
    let build = |out: &str| {
        project.ok(&["training-set", "--spine", "labels.csv", "--service", "score", "--timestamp", "at", "--out", out]);
    };
    let args = ["--commit-every", "0.1"];
    push(&project, &args, &[payment("1", "2024-05-01T10:00:00Z")]);
    project.ok(&["stream", "--until-end"]);
    project.write("labels.csv", "user_id,amount,at\n1,1.0,2024-05-01T09:30:00Z\n1,1.0,2024-05-01T10:30:00Z\n");
    build("a.parquet");
    build("same.parquet");
    assert!(project.ok(&["training-set", "--diff", "a.parquet", "same.parquet"]).contains("are the same"));

    push(&project, &args, &[payment("2", "2024-05-01T10:10:00Z")]);
    project.ok(&["stream", "--until-end"]);
    let services = std::fs::read_to_string(project.path("features/services.sql")).unwrap();
    project.write("features/services.sql", services.replace("s.spend_1h,", "s.spend_1h + 0 AS spent_1h,"));
    build("b.parquet");
    let output = project.run(&["training-set", "--diff", "a.parquet", "b.parquet"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    for wanted in [
        "made from source.payments.offsets: A 0:0-0, B 0:0-1",
        "made from service.sql, line 2: A `",
        "column spend_1h: A Float64, B nothing",
        "column spent_1h: A nothing, B Float64",
        "column payments_1h: 1 row differs; the first is row 2: A 1, B 2",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    project.write("labels.csv", SPINE);
    build("c.parquet");
    let said = text(&project.run(&["training-set", "--diff", "b.parquet", "c.parquet"]).stdout);
    assert!(said.contains("rows: A 2, B 1"), "{said}");
    let output = project.run(&["training-set", "--diff", "a.parquet", "labels.csv"]);
    assert!(text(&output.stderr).contains("labels.csv"), "{}", text(&output.stderr));
}

#[test]
fn files_that_can_not_matter_are_not_read() {
    let project = shop_project(1);
    let args = ["--commit-every", "0.1"];
    push(&project, &args, &[payment("1", "2024-05-01T10:00:00Z"), payment("2", "2024-05-01T10:05:00Z")]);
    project.ok(&["stream", "--until-end"]);
    let old = files_below(&project.path("data/offline/archive/payments"), "parquet");
    push(&project, &args, &[payment("3", "2024-06-01T10:00:00Z")]);
    project.ok(&["stream", "--until-end"]);
    assert_eq!(files_below(&project.path("data/offline/archive/payments"), "parquet").len(), old.len() + 1);

    // Whoever reads the rows of the old file now, and not only its footer, fails.
    let mut bytes = std::fs::read(&old[0]).unwrap();
    bytes[4..100].fill(0xff);
    std::fs::write(&old[0], bytes).unwrap();
    project.write("june.csv", "user_id,amount,at\n1,1.0,2024-06-01T10:30:00Z\n");
    project.write("may.csv", SPINE);
    let set = |spine| {
        let args =
            ["training-set", "--spine", spine, "--service", "score", "--timestamp", "at", "--out", "set.parquet"];
        project.run(&args)
    };
    let done = set("june.csv");
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(rows(&project, "set.parquet")["payments_1h"].as_primitive::<Int64Type>().values().to_vec(), [1]);
    assert_eq!(set("may.csv").status.code(), Some(1), "the old file is broken, and may.csv needs it");
}
