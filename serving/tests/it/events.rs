//! Pushed events: each accepted or refused by itself.

use serde_json::json;

use crate::project;
use crate::server::{MINUTE, NOW, Server, config, event, usual_events};

const EVENTS: &str = "/v1/sources/transactions/events";

#[test]
fn good_events_are_taken_and_bad_ones_are_told_why() {
    let server = Server::start(config());
    let mut wrong = event("b", 1, 1.0, 1);
    wrong["amount"] = json!("abc");
    let mut unknown = event("c", 1, 1.0, 1);
    unknown["contry"] = json!("SE");
    let answer = server.post(EVENTS, &json!({"events": [event("a", 1, 1.0, 1), wrong, unknown, 7]}));
    assert_eq!(answer.content_type, "application/json");
    let answer = answer.expect(207);
    assert_eq!((&answer["accepted"], &answer["source"]), (&json!(1), &json!("transactions")));
    let refused = answer["refused"].as_array().unwrap();
    let reasons: Vec<(u64, &str)> =
        refused.iter().map(|r| (r["index"].as_u64().unwrap(), r["reason"].as_str().unwrap())).collect();
    assert_eq!(reasons.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(reasons[0].1.contains("amount") && reasons[0].1.contains("abc"), "{reasons:?}");
    assert!(reasons[1].1.contains("contry") && reasons[1].1.contains("country"), "{reasons:?}");

    let none = server.post(EVENTS, &json!({"events": [7, {}]})).problem(422);
    assert_eq!((&none["accepted"], &none["refused"][1]["index"]), (&json!(0), &json!(1)));
    server.push(&[]);
    server.drain();
    assert_eq!(server.get("/v1/views/user_spend?user_id=1").expect(200)["row"]["txn_count_1h"], 1);
    let metrics = server.get("/metrics").text;
    assert!(
        metrics.contains(r#"tidemark_source_events_pushed_total{outcome="accepted",source="transactions"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"tidemark_source_events_pushed_total{outcome="refused",source="transactions"} 5"#),
        "{metrics}"
    );
}

#[test]
fn ndjson_is_one_event_a_line() {
    let server = Server::start(config());
    let lines = format!("{}\r\n\n{{\"transaction_id\": }}\n{}", event("a", 5, 1.0, 1), event("b", 5, 2.0, 1));
    let answer = server.post_as(EVENTS, "application/x-ndjson; charset=utf-8", lines.as_bytes()).expect(207);
    assert_eq!(answer["accepted"], 2);
    assert_eq!(answer["refused"], json!([{"index": 1, "reason": "line 3, column 20: not JSON: expected value"}]));
    server.drain();
    assert_eq!(server.get("/v1/views/user_spend?user_id=5").expect(200)["row"]["spend_1h"], 3.0);
}

#[test]
fn an_event_sent_twice_counts_once_and_survives_a_restart() {
    let server = Server::start(config());
    server.push(&usual_events());
    server.push(&usual_events());
    // Not drained: what was answered is in the log.
    let server = Server::over(server.into_folder(), config());
    server.drain();
    assert_eq!(server.get("/v1/views/user_spend?user_id=1").expect(200)["row"]["txn_count_1h"], 2);
}

/// What was accepted is accepted: a limit that changes later judges what comes from then on.
#[test]
fn a_changed_limit_does_not_judge_the_past_again() {
    let server = Server::start(config());
    server.push(&[event("now", 1, 1.0, 0), event("soon", 1, 2.0, -4)]);
    let refused = server.post(EVENTS, &json!({"events": [event("far", 1, 4.0, -6)]})).problem(422);
    let reason = refused["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("event_time") && reason.contains("at most 300 seconds past the clock"), "{reason}");
    server.drain();
    let folder = server.into_folder();
    let stricter = "timestamp = 'event_time', max_future = '1 minute', event_id";
    project::write(folder.path(), &project::SQL.replace("timestamp = 'event_time', event_id", stricter));
    let server = Server::over(folder, config());
    server.drain();
    let read = server.post("/v1/views/user_spend", &json!({"keys": [{"user_id": 1}], "as_of": NOW + 5 * MINUTE}));
    assert_eq!(read.expect(200)["rows"][0]["spend_1h"], 3.0);
    let versions = server.runtime.block_on(server.platform.store.views()).unwrap();
    let of_view = versions.iter().filter(|id| id.name == "user_spend");
    assert_eq!(of_view.count(), 1, "the earlier version's state is gone: {versions:?}");
}

#[test]
fn a_source_of_files_takes_no_events() {
    let server = Server::start(config());
    let problem = server.post("/v1/sources/old_events/events", &json!({"events": [{"at": 1}]})).problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("old_events"), "{problem}");
}
