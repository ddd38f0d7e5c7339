//! When answers can be trusted, and what is said until then.

use serde_json::json;

use crate::gate::Gate;
use crate::project;
use crate::server::{Server, config, event, usual_events};

fn reasons(problem: &serde_json::Value) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    problem["reasons"].as_array().unwrap().iter().map(|r| (text(&r["kind"]), text(&r["name"]))).collect()
}

#[test]
fn a_platform_is_ready_once_its_workers_have_caught_up() {
    let mut server = Server::start(config());
    server.push(&usual_events());
    let before = server.get("/ready").problem(503);
    assert!(reasons(&before).contains(&("starting".into(), "user_spend".into())), "{before}");
    assert!(reasons(&before).contains(&("catching_up".into(), "transactions".into())), "{before}");
    let unread = server.get("/v1/views/user_spend?user_id=1").problem(503);
    assert_eq!(unread["detail"], "view user_spend has not started yet: its source transactions is being opened");
    assert_eq!(server.post("/v1/services/fraud_v1", &json!({"rows": []})).status, 503);
    assert_eq!(server.get("/health").status, 200);

    server.start_workers();
    let ready = server.until("/ready", |a| a.status == 200).json();
    assert_eq!(ready["status"], "ready");
    let fresh =
        server.until("/v1/views/user_spend?user_id=1", |a| a.status == 200 && a.json()["row"]["txn_count_1h"] == 2);
    assert_eq!(fresh.json()["row"]["spend_1h"], 20.5);
    server.push(&[event("e", 1, 1.5, 0)]);
    server.until("/v1/views/user_spend?user_id=1", |a| a.json()["row"]["spend_1h"] == 22.0);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn a_new_view_is_not_read_before_it_has_its_history() {
    let server = Server::with_events();
    let folder = server.into_folder();
    project::write(folder.path(), &project::with_new_view());
    let mut server = Server::over(folder, config());
    server.gate.send(Gate::Shut).unwrap();
    server.start_workers();
    let filling = server.until("/v1/views/user_total?user_id=1", |a| a.text.contains("is filling")).problem(503);
    assert_eq!(filling["detail"], "view user_total is filling: 4 events to go");
    assert_eq!(filling["type"], "urn:tidemark:problem:filling");
    let ready = server.get("/ready").problem(503);
    assert!(reasons(&ready).contains(&("filling".into(), "user_total".into())), "{ready}");
    // The others have theirs already.
    assert_eq!(server.get("/v1/views/user_spend?user_id=1").expect(200)["row"]["txn_count_1h"], 2);

    server.gate.send(Gate::Open).unwrap();
    server.until("/ready", |a| a.status == 200);
    assert_eq!(server.get("/v1/views/user_total?user_id=1").expect(200)["row"]["total"], 30.5);
}

/// Also where there is nothing yet: partial values would be wrong ones.
#[test]
fn the_first_fill_is_a_fill_across_restarts() {
    let server = Server::start(config());
    server.push(&usual_events());
    let mut server = Server::over(server.into_folder(), config());
    server.gate.send(Gate::Shut).unwrap();
    server.start_workers();
    let filling = server.until("/v1/views/user_spend?user_id=1", |a| a.text.contains("is filling")).problem(503);
    assert_eq!(filling["type"], "urn:tidemark:problem:filling");
    // What came later is no part of the fill.
    let mut server = Server::over(server.into_folder(), config());
    server.push(&[event("later", 1, 1.5, 0)]);
    server.start_workers();
    server.until("/ready", |a| a.status == 200);
    server.until("/v1/views/user_spend?user_id=1", |a| a.json()["row"]["spend_1h"] == 22.0);
}

#[test]
fn a_view_whose_table_is_missing_stops_no_other() {
    let server = Server::start(config());
    let folder = server.into_folder();
    let more = "CREATE EXTERNAL TABLE regions (country VARCHAR, region VARCHAR) STORED AS CSV LOCATION 'regions.csv';
        CREATE FEATURE VIEW by_region AS SELECT user_id, LAST_VALUE(region) OVER (PARTITION BY user_id ORDER BY event_time \
        RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS region \
        FROM transactions JOIN regions ON regions.country = transactions.country;";
    project::write(folder.path(), &format!("{}\n{more}", project::SQL));
    let mut server = Server::over(folder, config());
    server.push(&usual_events());
    server.start_workers();
    server.until("/v1/views/user_spend?user_id=1", |a| a.status == 200 && a.json()["row"]["spend_1h"] == 20.5);
    let missing = server.get("/v1/views/by_region?user_id=1").problem(503);
    assert_eq!(missing["type"], "urn:tidemark:problem:not-loaded");
    let ready = server.get("/ready").problem(503);
    assert_eq!(reasons(&ready), [("not_loaded".to_owned(), "by_region".to_owned())]);

    let folder = server.into_folder();
    std::fs::write(folder.path().join("regions.csv"), "country,region\nSE,north\nDE,middle\nUS,west\n").unwrap();
    let server = Server::over(folder, config());
    server.drain();
    let row = server.get("/v1/views/by_region?user_id=1").expect(200);
    assert_eq!(row["status"], "PRESENT", "{row}");
}

#[test]
fn a_store_that_fails_stalls_the_stream_and_answers_503() {
    let mut server = Server::with_events();
    server.start_workers();
    server.until("/ready", |a| a.status == 200);
    server.gate.send(Gate::Broken).unwrap();
    let read = server.get("/v1/views/user_spend?user_id=1").problem(503);
    assert_eq!(read["detail"], "the online store can't be read at the moment; try again");
    server.push(&[event("e", 77, 1.5, 0)]);
    let stalled = server.until("/ready", |a| a.status == 503).problem(503);
    assert_eq!(reasons(&stalled), [("stalled".into(), "transactions".into())]);
    server.gate.send(Gate::Open).unwrap();
    server.until("/ready", |a| a.status == 200);
    server.until("/v1/views/user_spend?user_id=77", |a| a.json()["row"]["spend_1h"] == 1.5);
}

#[test]
fn metrics_are_prometheus_text_of_engine_and_server() {
    let server = Server::with_events();
    server
        .post("/v1/services/fraud_v1", &json!({"rows": [{"user_id": 1, "amount": 1}, {"user_id": 8, "amount": 1}]}))
        .expect(200);
    server.get("/v1/nothing");
    let answer = server.get("/metrics");
    assert!(answer.content_type.starts_with("text/plain; version=0.0.4"), "{}", answer.content_type);
    for line in [
        "# TYPE tidemark_http_request_duration_seconds histogram",
        r#"tidemark_http_requests_total{method="POST",route="/v1/services/{service}",status="200"} 1"#,
        r#"tidemark_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"tidemark_http_request_duration_seconds_count{route="/v1/services/{service}"} 1"#,
        "tidemark_http_requests_in_flight 1",
        r#"tidemark_view_reads_total{status="PRESENT",view="user_spend"} 1"#,
        r#"tidemark_view_reads_total{status="NOT_FOUND",view="user_spend"} 1"#,
        r#"tidemark_source_events_total{source="transactions"} 4"#,
        r#"tidemark_view_filling{view="user_spend"} 0"#,
    ] {
        assert!(answer.text.lines().any(|l| l == line), "{line}\nis not in\n{}", answer.text);
    }
}
