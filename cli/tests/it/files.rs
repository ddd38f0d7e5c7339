//! From one's own files to a training set, as the README walks through it.

use std::fs;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::json;

use crate::support::{Project, Up, dead_letters, read, text};

const EVENTS: &str = "\
order_id,customer,total,ordered_at
1,anna,10.0,2024-05-01T10:00:00Z
2,anna,20.5,2024-05-01T10:30:00Z
3,ben,5.0,2024-05-01T10:45:00Z
4,anna,1.25,2024-05-01T11:30:00Z
";

const FEATURES: &str = "
CREATE SOURCE orders WITH (connector = 'files', location = 'events/*.csv', timestamp = 'ordered_at');

CREATE FEATURE VIEW customer_orders AS
SELECT customer, COUNT(*) OVER hour AS orders_1h, SUM(total) OVER hour AS spend_1h
FROM orders
WINDOW hour AS (PARTITION BY customer ORDER BY ordered_at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

CREATE FEATURE SERVICE customer_v1 (customer VARCHAR) AS
SELECT o.orders_1h, o.spend_1h FROM request LEFT JOIN customer_orders o ON o.customer = request.customer;
";

const LABELS: &str = "\
customer,at,returned
anna,2024-05-01T10:30:00Z,true
anna,2024-05-01T11:30:00Z,false
ben,2024-05-01T11:46:00Z,false
anna,2024-05-01T09:59:59Z,false
carl,2024-05-01T12:00:00Z,true
";

fn project() -> Project {
    Project::new(&[("features/orders.sql", FEATURES), ("events/may.csv", EVENTS), ("labels.csv", LABELS)])
}

#[test]
fn csv_events_become_online_values_and_a_training_set() {
    let project = project();
    let drained = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(drained["sources"]["orders"], json!({"events": 4, "rejected": 0}));
    let again = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(again["sources"]["orders"]["events"], 0, "a second run has nothing to do");

    let args = [
        "training-set",
        "--spine",
        "labels.csv",
        "--service",
        "customer_v1",
        "--timestamp",
        "at",
        "--out",
        "out/set.parquet",
    ];
    let said = project.ok(&args);
    assert!(said.contains("5 rows, 5 columns"), "{said}");
    let rows = read(&project.path("out/set.parquet")).pop().unwrap();
    let columns: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(columns, ["customer", "at", "returned", "orders_1h", "spend_1h"]);
    let orders = rows.column(3).as_primitive::<Int64Type>();
    // Both ends are included: at 11:30 anna's order of 10:30 still counts. A window over nothing counts 0 and sums to NULL.
    assert_eq!(orders.iter().collect::<Vec<_>>(), [Some(2), Some(2), Some(0), Some(0), Some(0)]);
    let spend = rows.column(4).as_primitive::<Float64Type>();
    assert_eq!(spend.iter().collect::<Vec<_>>(), [Some(30.5), Some(21.75), None, None, None]);
    assert!(rows.column(2).as_boolean().value(0));

    let up = project.up(&[]);
    up.wait_until_ready();
    let body = json!({"rows": [{"customer": "anna"}, {"customer": "carl"}], "as_of": "2024-05-01T11:30:00Z"});
    let (status, answer) = up.post("/v1/services/customer_v1", &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["rows"], json!([{"orders_1h": 2, "spend_1h": 21.75}, {"orders_1h": 0, "spend_1h": null}]));
    assert_eq!(answer["views"]["customer_orders"]["status"], json!(["PRESENT", "NOT_FOUND"]));
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn a_new_file_is_picked_up_and_bad_rows_are_dead_lettered() {
    let project = project();
    project.ok(&["stream", "--until-end"]);
    let more = "order_id,customer,total,ordered_at\n5,ben,7.5,2024-05-01T11:00:00Z\n6,ben,lots,2024-05-01T11:01:00Z\n7,ben\n8,ben,1.0,yesterday\n9,ben,0.5,2024-05-01T11:02:00Z\n";
    project.write("events/june.csv.part", "");
    project.write("events/may2.csv", more);
    let drained = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(drained["sources"]["orders"], json!({"events": 2, "rejected": 3}));
    let letters = dead_letters(&project, "orders");
    let reasons: Vec<&str> = letters.iter().map(|l| l["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().all(|r| r.contains("may2.csv")), "{reasons:?}");
    assert!(
        reasons.iter().any(|r| r.contains("lots")) && reasons.iter().any(|r| r.contains("yesterday")),
        "{reasons:?}"
    );
}

#[test]
fn a_wrong_spine_says_which_file_and_column() {
    let project = project();
    let build = |spine: &str, timestamp: &str| {
        let args = [
            "training-set",
            "--spine",
            spine,
            "--service",
            "customer_v1",
            "--timestamp",
            timestamp,
            "--out",
            "set.parquet",
        ];
        let output = project.run(&args);
        assert_eq!(output.status.code(), Some(1), "{spine}");
        assert!(!project.path("set.parquet").exists());
        text(&output.stderr)
    };
    assert!(build("nowhere.csv", "at").contains("nowhere.csv: no such file"));
    let said = build("labels.csv", "when");
    assert!(
        said.contains("labels.csv") && said.contains("`when`") && said.contains("customer, at, returned"),
        "{said}"
    );
    project.write("short.csv", "at,returned\n2024-05-01T10:30:00Z,true\n");
    let said = build("short.csv", "at");
    assert!(said.contains("short.csv") && said.contains("`customer`"), "{said}");
    project.write("noon.csv", "customer,at\nanna,2024-05-01T10:30:00Z\nben,noon\n");
    let said = build("noon.csv", "at");
    assert!(said.contains("noon.csv") && said.contains("row 2") && said.contains("noon"), "{said}");
    let output = project.run(&["training-set", "nothing", "--out", "x.parquet"]);
    assert!(text(&output.stderr).contains("no training set `nothing`"));
    let output = project.run(&["training-set", "--spine", "labels.csv", "--out", "x.parquet"]);
    assert_eq!(output.status.code(), Some(2), "a spine needs a service and a timestamp");
}

/// What anna has at 11:30 in a training set.
fn offline(project: &Project) -> (Option<i64>, Option<f64>) {
    project.write("one.csv", "customer,at\nanna,2024-05-01T11:30:00Z\n");
    project.ok(&TRAINING_SET);
    let rows = read(&project.path("one.parquet")).pop().unwrap();
    let orders = rows.column(2).as_primitive::<Int64Type>().iter().next().flatten();
    (orders, rows.column(3).as_primitive::<Float64Type>().iter().next().flatten())
}

const TRAINING_SET: [&str; 9] =
    ["training-set", "--spine", "one.csv", "--service", "customer_v1", "--timestamp", "at", "--out", "one.parquet"];

/// The same from the online store, which has read all that there is.
fn online(project: &Project) -> (Option<i64>, Option<f64>) {
    let up = project.up(&[]);
    up.wait_until_ready();
    let (status, answer) =
        up.post("/v1/services/customer_v1", &json!({"rows": [{"customer": "anna"}], "as_of": "2024-05-01T11:30:00Z"}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(up.stop(), Some(0));
    (answer["rows"][0]["orders_1h"].as_i64(), answer["rows"][0]["spend_1h"].as_f64())
}

fn drained(project: &Project, args: &[&str]) -> (u64, u64) {
    let source = project.json(&[&["stream", "--until-end", "--json"], args].concat())["sources"]["orders"].clone();
    (source["events"].as_u64().unwrap(), source["rejected"].as_u64().unwrap())
}

fn refused(project: &Project, args: &[&str]) -> String {
    let output = project.run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn a_project_that_moves_counts_every_event_once() {
    let project = project();
    assert_eq!(drained(&project, &[]), (4, 0));
    let folder = project.path("").canonicalize().unwrap();
    let spelt = format!("../{}/features", folder.file_name().unwrap().to_str().unwrap());
    assert_eq!(drained(&project, &["--features", &spelt]), (0, 0));
    let moved = Project::new(&[]);
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), moved.path("").join(entry.file_name())).unwrap();
    }
    assert_eq!(drained(&moved, &[]), (0, 0));
    moved.write("events/may2.csv", "order_id,customer,total,ordered_at\n5,anna,2.0,2024-05-01T11:00:00Z\n");
    assert_eq!(drained(&moved, &[]), (1, 0));
    assert_eq!((online(&moved), offline(&moved)), ((Some(3), Some(23.75)), (Some(3), Some(23.75))));
}

#[test]
fn a_file_that_is_gone_is_an_error_online_and_offline() {
    let project = project();
    project.write("events/june.csv", "order_id,customer,total,ordered_at\n5,anna,2.0,2024-05-01T11:00:00Z\n");
    drained(&project, &[]);
    fs::remove_file(project.path("events/june.csv")).unwrap();
    project.write("one.csv", "customer,at\nanna,2024-05-01T11:30:00Z\n");
    for said in [refused(&project, &["stream", "--until-end"]), refused(&project, &TRAINING_SET)] {
        assert!(said.contains("june.csv") && said.contains("is gone") && said.contains("put it back"), "{said}");
    }
    // The way out that the message names.
    fs::rename(project.path("events"), project.path("kept")).unwrap();
    project.write("features/orders.sql", FEATURES.replace("events/*.csv", "kept/*.csv"));
    assert_eq!(drained(&project, &[]), (4, 0));
    assert_eq!((online(&project), offline(&project)), ((Some(2), Some(21.75)), (Some(2), Some(21.75))));
}

#[test]
fn another_location_starts_anew() {
    let project = project();
    assert_eq!(drained(&project, &[]), (4, 0));
    project.write("other/a.csv", "order_id,customer,total,ordered_at\n1,anna,7.0,2024-05-01T11:00:00Z\n2,anna,1,\n");
    project.write("features/orders.sql", FEATURES.replace("events/*.csv", "other/*.csv"));
    assert_eq!(offline(&project), (Some(1), Some(7.0)), "what a drain would read");
    assert_eq!(drained(&project, &[]), (1, 1));
    assert_eq!((online(&project), offline(&project)), ((Some(1), Some(7.0)), (Some(1), Some(7.0))));
    assert_eq!(dead_letters(&project, "orders").len(), 1);
    project.write("features/orders.sql", FEATURES);
    assert_eq!(drained(&project, &[]), (0, 0));
    assert_eq!((online(&project), offline(&project)), ((Some(2), Some(21.75)), (Some(2), Some(21.75))));
}

#[test]
fn a_file_that_grows_is_read_on_and_one_that_changes_is_dead_lettered() {
    let project = project();
    drained(&project, &[]);
    project.write("events/may.csv", format!("{EVENTS}5,anna,2.0,2024-05-01T11:00:00Z\n"));
    assert_eq!(drained(&project, &[]), (1, 0));
    assert_eq!((online(&project), offline(&project)), ((Some(3), Some(23.75)), (Some(3), Some(23.75))));

    project.write("events/may.csv", EVENTS.replace("20.5", "30.5"));
    project.write("events/june.csv", "order_id,customer,total,ordered_at\n6,anna,1.0,2024-05-01T11:10:00Z\n");
    assert_eq!(drained(&project, &[]), (1, 1), "the others go on");
    let letter = dead_letters(&project, "orders").remove(0);
    assert!(letter["reason"].as_str().unwrap().contains("may.csv has changed since its events were read"), "{letter}");
    assert!(refused(&project, &TRAINING_SET).contains("may.csv has changed since its events were read"));
    project.write("events/may.csv", format!("{EVENTS}5,anna,2.0,2024-05-01T11:00:00Z\n"));
    assert_eq!(drained(&project, &[]), (0, 0));
    assert_eq!((online(&project), offline(&project)), ((Some(4), Some(24.75)), (Some(4), Some(24.75))));
}

#[test]
fn a_stream_that_runs_takes_a_file_when_it_is_whole() {
    let project = project();
    let up = project.up(&["--commit-every", "0.1"]);
    let orders = |up: &Up| {
        let body = json!({"rows": [{"customer": "anna"}], "as_of": "2024-05-01T11:30:00Z"});
        up.post("/v1/services/customer_v1", &body).1["rows"][0]["orders_1h"].as_i64()
    };
    up.wait_until("the first file", |up| orders(up) == Some(2));
    // A writer that stopped in the middle of a line, and goes on.
    project.write("events/may.csv", format!("{EVENTS}5,anna,2.0,2024-05-01T11:00:00Z\n6,anna,1.0,2024-05"));
    up.wait_until("the whole line", |up| orders(up) == Some(3));
    project
        .write("events/may.csv", format!("{EVENTS}5,anna,2.0,2024-05-01T11:00:00Z\n6,anna,1.0,2024-05-01T11:10:00Z\n"));
    up.wait_until("the rest", |up| orders(up) == Some(4));
    assert_eq!(up.metric("tidemark_source_lag_events", "orders"), 0.0);
    assert_eq!(up.metric("tidemark_source_events_rejected_total", "orders"), 0.0);
    assert_eq!(up.stop(), Some(0));
    assert_eq!(offline(&project), (Some(4), Some(24.75)));
}

#[test]
fn files_of_any_age_are_taken() {
    let project = project();
    let file = fs::File::options().write(true).open(project.path("events/may.csv")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(offline(&project), (Some(2), Some(21.75)));
    assert_eq!(drained(&project, &[]), (4, 0));
    assert_eq!((online(&project), offline(&project)), ((Some(2), Some(21.75)), (Some(2), Some(21.75))));
}
