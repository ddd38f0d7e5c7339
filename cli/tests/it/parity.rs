//! What a training set says and what REST serves for the same entity and instant, where files, types and contracts
//! could come between the two.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use serde_json::{Value as Json, json};

use crate::support::{CONTRACT, Project, parquet, read, shop_project, text};

const FEATURES: &str = "
CREATE SOURCE pings WITH (connector = 'files', location = 'events/*.csv', timestamp = 'at');
CREATE FEATURE VIEW seen AS
SELECT device, COUNT(*) OVER ever AS pings FROM pings
WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW shares AS
SELECT device, 100 / COUNT(*) OVER ever AS share FROM pings
WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE device_v1 (device BIGINT) AS
SELECT v.pings FROM request LEFT JOIN seen v ON v.device = request.device;
CREATE FEATURE SERVICE share_v1 (device BIGINT) AS
SELECT v.share FROM request LEFT JOIN shares v ON v.device = request.device;
CREATE FEATURE SERVICE ratio_v1 (device BIGINT, n BIGINT) AS
SELECT 100 / request.n AS ratio FROM request;
";

/// A device, and its pings at half past a second, one of them before 1970.
const PINGS: &str = "device,at\n1,2024-05-01T10:00:00.5Z\n1,1969-12-31T23:59:58.5Z\n";

fn devices() -> Project {
    Project::new(&[("features/devices.sql", FEATURES), ("events/pings.csv", PINGS)])
}

fn args<'a>(service: &'a str, spine: &'a str) -> [&'a str; 9] {
    ["training-set", "--spine", spine, "--service", service, "--timestamp", "at", "--out", "set.parquet"]
}

fn build(project: &Project, service: &str, spine: &str) -> RecordBatch {
    project.ok(&args(service, spine));
    read(&project.path("set.parquet")).pop().unwrap()
}

fn refusal(project: &Project, service: &str, spine: &str) -> String {
    let output = project.run(&args(service, spine));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn the_instants_of_a_csv_spine_keep_their_fractions() {
    let project = devices();
    // The types of the first 1,000 rows would cut the rest to whole seconds: 10:00:01, and before 1970 to the second after.
    let mut spine = String::from("device,at,label\n");
    (0..1_000).for_each(|i| writeln!(spine, "1,2023-01-01T00:00:00Z,{i}").unwrap());
    spine.push_str("1,2024-05-01T10:00:00.6Z,0.5\n1,2024-05-01T10:00:00.4Z,1\n1,1969-12-31T23:59:58.4Z,2\n");
    project.write("spine.csv", spine);
    let set = build(&project, "device_v1", "spine.csv");
    assert_eq!(set["at"].data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(set["label"].as_primitive::<Float64Type>().value(1_000), 0.5);
    let pings = set["pings"].as_primitive::<Int64Type>();
    assert_eq!(pings.values()[1_000..], [2, 1, 0]);

    // The other ways to write an instant, all the same type in the end; a date is its midnight.
    project.write("days.csv", "device,at\n1,2024-05-01\n1,2024-05-02\n");
    project.write(
        "lines.ndjson",
        "{\"device\":1,\"at\":\"2024-05-01\"}\n{\"device\":1,\"at\":\"2024-05-02T00:00:00+02:00\"}\n",
    );
    for spine in ["days.csv", "lines.ndjson"] {
        let set = build(&project, "device_v1", spine);
        assert_eq!(set["at"].data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "{spine}");
        assert_eq!(set["pings"].as_primitive::<Int64Type>().values().to_vec(), [1, 2], "{spine}");
    }

    project.ok(&["stream", "--until-end"]);
    let up = project.up(&[]);
    up.wait_until_ready();
    for (at, pings) in [("2024-05-01T10:00:00.6Z", 2), ("2024-05-01T10:00:00.4Z", 1)] {
        let body = json!({"rows": [{"device": 1}], "as_of": at});
        assert_eq!(up.post("/v1/services/device_v1", &body).1["rows"], json!([{"pings": pings}]), "{at}");
    }
}

#[test]
fn a_spine_is_as_strict_as_a_request() {
    let project = devices();
    let mut late = String::from("device,at\n");
    (0..1_200).for_each(|_| late.push_str("1,2024-05-02\n"));
    for (value, shown) in [("1.5", "`1.5`"), ("abc", "`abc`"), ("9223372036854775808", "`9223372036854775808`")] {
        project.write("spine.csv", format!("{late}{value},2024-05-02\n"));
        let said = refusal(&project, "device_v1", "spine.csv");
        for word in ["spine.csv", "`device`", "row 1201", shown, "BIGINT", "device_v1"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    project.write("spine.ndjson", "{\"device\":1,\"at\":\"2024-05-02\"}\n{\"device\":1.5,\"at\":\"2024-05-02\"}\n");
    let said = refusal(&project, "device_v1", "spine.ndjson");
    assert!(said.contains("row 2") && said.contains("`1.5`"), "{said}");
    project.write("spine.csv", "device,at\n1,2024-05-02\n1,\n");
    let said = refusal(&project, "device_v1", "spine.csv");
    assert!(said.contains("row 2") && said.contains("`at`") && said.contains("NULL"), "{said}");
    // NULL is NULL: it joins nothing.
    project.write("spine.csv", "device,at\n,2024-05-02\n1,2024-05-02\n");
    let pings = build(&project, "device_v1", "spine.csv");
    assert_eq!(pings["pings"].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [None, Some(2)]);
}

#[test]
fn a_row_that_cant_be_computed_is_named() {
    let project = devices();
    project.write("spine.csv", "device,at,n\n1,2024-05-02,5\n7,2024-05-02,0\n");
    let said = refusal(&project, "share_v1", "spine.csv");
    for word in ["view shares", "key 7", "row 2", "share", "Divide by zero", "NULLIF(b, 0)"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let said = refusal(&project, "ratio_v1", "spine.csv");
    for word in ["service ratio_v1", "row 2", "ratio", "Divide by zero", "NULLIF(b, 0)"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn names_of_a_training_sets_own_are_refused_at_check() {
    let project = devices();
    project.write(
        "features/more.sql",
        "CREATE FEATURE SERVICE mine (__row BIGINT, __spine_0 BIGINT) AS SELECT request.__row AS a FROM request;
         CREATE FEATURE SERVICE yours (n BIGINT) AS SELECT request.n AS __instant FROM request;",
    );
    let output = project.run(&["check"]);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`__row` is reserved") && said.contains("`__instant` is reserved"), "{said}");
    project.write(
        "features/more.sql",
        "CREATE FEATURE SERVICE mine (__index_level_0__ BIGINT) AS SELECT request.__index_level_0__ + 1 AS __next FROM request;",
    );
    project.write("spine.csv", "__index_level_0__,__row,at\n1,9,2024-05-02\n");
    let set = build(&project, "mine", "spine.csv");
    assert_eq!(set["__next"].as_primitive::<Int64Type>().values().to_vec(), [2]);
    assert_eq!(set["__row"].as_primitive::<Int64Type>().values().to_vec(), [9]);
}

/// Doubles are equal to themselves by their bits in a lookup; DataFusion's own join thinks otherwise.
#[test]
fn a_lookup_of_a_table_is_the_same_online_and_offline() {
    let project = devices();
    project.write(
        "features/rates.sql",
        "CREATE EXTERNAL TABLE rates (rate DOUBLE, name VARCHAR) STORED AS CSV LOCATION 'rates.csv';
         CREATE FEATURE SERVICE rated (device BIGINT, rate DOUBLE) AS
         SELECT r.name, UPPER(r.name) AS loud, v.pings
         FROM request LEFT JOIN rates r ON r.rate = request.rate LEFT JOIN seen v ON v.device = request.device;",
    );
    project.write("rates.csv", "rate,name\n0.0,zero\n-0.0,minus\n1.5,more\nNaN,none\n");
    let values = ["0.0", "-0.0", "1.5", "NaN", "2.0", ""];
    let rows: String = values.iter().map(|v| format!("1,{v},2024-05-02\n")).collect();
    project.write("spine.csv", format!("device,rate,at\n{rows}"));
    project.ok(&["stream", "--until-end"]);
    let set = build(&project, "rated", "spine.csv");
    assert_eq!(set.num_rows(), values.len());

    let up = project.up(&[]);
    up.wait_until_ready();
    let asked = [json!(0.0), json!(-0.0), json!(1.5), json!("NaN"), json!(2.0), Json::Null];
    let asked: Vec<Json> = asked.into_iter().map(|rate| json!({"device": 1, "rate": rate})).collect();
    let (status, answer) = up.post("/v1/services/rated", &json!({"rows": asked, "as_of": "2024-05-02T00:00:00Z"}));
    assert_eq!(status, 200, "{answer}");
    let name = |column: &str, i: usize| {
        let names = set[column].as_string::<i32>();
        if names.is_null(i) { Json::Null } else { json!(names.value(i)) }
    };
    for (i, row) in answer["rows"].as_array().unwrap().iter().enumerate() {
        let offline = json!({"name": name("name", i), "loud": name("loud", i),
            "pings": set["pings"].as_primitive::<Int64Type>().value(i)});
        assert_eq!(*row, offline, "{}", values[i]);
    }
    assert_eq!((name("name", 2), name("name", 4)), (json!("more"), Json::Null));
}

pub fn payment(id: &str, at: &str) -> Json {
    json!({"id": id, "user_id": 1, "shop": "s", "amount": 2.5, "note": null, "at": at})
}

pub fn push(project: &Project, args: &[&str], events: &[Json]) {
    let up = project.up(args);
    let (status, answer) = up.post("/v1/sources/payments/events", &json!({"events": events}));
    assert_eq!((status, &answer["accepted"]), (200, &json!(events.len())), "{answer}");
}

pub const SPINE: &str = "user_id,amount,at\n1,1.0,2024-05-01T10:30:00Z\n";

#[test]
fn a_field_that_a_contract_gains_has_its_default_in_the_archive_too() {
    let project = shop_project(1);
    project.write("spine.csv", SPINE);
    push(&project, &[], &[payment("1", "2024-05-01T10:00:00Z"), payment("2", "2024-05-01T10:01:00Z")]);
    project.ok(&["stream", "--until-end"]);
    let grown = CONTRACT
        .replace(r#"{"name": "shop""#, r#"{"name": "ch", "type": "string", "default": "web"}, {"name": "shop""#);
    project.write("schemas/payments.v1.avsc", grown);
    project.write(
        "features/channels.sql",
        "CREATE FEATURE VIEW web AS
         SELECT user_id, COUNT(*) FILTER (WHERE ch = 'web') OVER day AS web_1d, LAST_VALUE(ch) OVER day AS last_ch FROM payments
         WINDOW day AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
         CREATE FEATURE SERVICE channels (user_id BIGINT) AS
         SELECT w.web_1d, w.last_ch FROM request LEFT JOIN web w ON w.user_id = request.user_id;",
    );
    let mut third = payment("3", "2024-05-01T09:00:00Z");
    third["ch"] = json!("app");
    push(&project, &[], &[third]);
    project.ok(&["stream", "--until-end"]);
    let set = build(&project, "channels", "spine.csv");
    let offline = json!([{"web_1d": set["web_1d"].as_primitive::<Int64Type>().value(0),
        "last_ch": set["last_ch"].as_string::<i32>().value(0)}]);
    assert_eq!(offline, json!([{"web_1d": 2, "last_ch": "web"}]));
    let up = project.up(&[]);
    up.wait_until_ready();
    let body = json!({"rows": [{"user_id": 1}], "as_of": "2024-05-01T10:30:00Z"});
    assert_eq!(up.post("/v1/services/channels", &body).1["rows"], offline);
}

#[test]
fn an_archive_behind_the_log_is_said_and_an_empty_one_is_an_error() {
    let project = shop_project(2);
    project.write("spine.csv", SPINE);
    // Dropped before it commits: the events are in the log alone.
    push(&project, &["--commit-every", "3600"], &[payment("1", "2024-05-01T10:00:00Z")]);
    let said = refusal(&project, "score", "spine.csv");
    for word in ["source payments", "is empty", "1 events", "stream --until-end"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    project.ok(&["stream", "--until-end"]);
    let output = project.run(&args("score", "spine.csv"));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));

    let more: Vec<Json> = (2..5).map(|i| payment(&i.to_string(), "2024-05-01T10:00:00Z")).collect();
    push(&project, &["--commit-every", "3600"], &more);
    let output = project.run(&args("score", "spine.csv"));
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("3 events") && said.contains("stream --until-end"), "{said}");

    // While the platform runs, the log can't be asked.
    let up = project.up(&[]);
    up.wait_until_ready();
    let output = project.run(&args("score", "spine.csv"));
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("can't tell"), "{said}");
}

#[test]
fn an_archive_that_is_gone_comes_back_from_the_log() {
    let project = shop_project(2);
    project.write("spine.csv", SPINE);
    let events: Vec<Json> = (0..20).map(|i| payment(&i.to_string(), "2024-05-01T10:00:00Z")).collect();
    push(&project, &[], &events);
    project.ok(&["stream", "--until-end"]);
    let archive = project.path("data/offline/archive/payments");
    let archived = || parquet(&archive).iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(archived(), 20);
    std::fs::remove_dir_all(&archive).unwrap();
    let drained = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(drained["sources"]["payments"], json!({"events": 0, "rejected": 0}), "nothing counts twice");
    assert_eq!(archived(), 20);
    let set = build(&project, "score", "spine.csv");
    assert_eq!(set["payments_1h"].as_primitive::<Int64Type>().value(0), 20);
    let up = project.up(&[]);
    up.wait_until_ready();
    let body = json!({"rows": [{"user_id": 1, "amount": 1.0}], "as_of": "2024-05-01T10:30:00Z"});
    assert_eq!(up.post("/v1/services/score", &body).1["rows"][0]["payments_1h"], json!(20));
}
