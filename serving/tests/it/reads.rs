//! Reads of services and views: values, status, age, instants.

use serde_json::json;

use crate::server::{MINUTE, NOW, Server, config, event};

#[test]
fn a_service_answers_each_row_in_order() {
    let server = Server::with_events();
    let rows = json!({"rows": [{"user_id": 1, "amount": 41.0}, {"user_id": 9, "amount": 1}, {"amount": null, "user_id": null}]});
    let answer = server.post("/v1/services/fraud_v1", &rows);
    assert_eq!(answer.content_type, "application/json");
    assert_eq!(
        answer.expect(200),
        json!({
            "service": "fraud_v1",
            "rows": [
                {"amount": 41.0, "txn_count_1h": 2, "spend_1h": 20.5, "share": 2.0},
                {"amount": 1.0, "txn_count_1h": 0, "spend_1h": null, "share": null},
                {"amount": null, "txn_count_1h": null, "spend_1h": null, "share": null},
            ],
            "views": {"user_spend": {"status": ["PRESENT", "NOT_FOUND", "NULL_KEY"], "age_seconds": [600.0, null, null]}},
            "as_of": ["2026-03-01T12:00:00.000000Z", "2026-03-01T12:00:00.000000Z", "2026-03-01T12:00:00.000000Z"],
        })
    );
    // The columns stand in the order of the SELECT.
    assert!(answer.text.contains(r#"{"amount":41.0,"txn_count_1h":2,"spend_1h":20.5,"share":2.0}"#), "{}", answer.text);
    let empty = server.post("/v1/services/fraud_v1", &json!({"rows": []})).expect(200);
    assert_eq!((&empty["rows"], &empty["as_of"]), (&json!([]), &json!([])));
}

#[test]
fn as_of_reads_the_past_for_all_rows_or_for_each() {
    let server = Server::with_events();
    let row = json!({"user_id": 1, "amount": 1.0});
    let read = |as_of| server.post("/v1/services/fraud_v1", &json!({"rows": [row, row], "as_of": as_of})).expect(200);
    let one = read(json!("2026-03-01T11:45:00Z"));
    assert_eq!((&one["rows"][0]["txn_count_1h"], &one["rows"][1]["spend_1h"]), (&json!(1), &json!(20.0)));
    assert_eq!(one["views"]["user_spend"]["age_seconds"], json!([900.0, 900.0]));
    // An event exactly at the instant counts, one a microsecond later does not.
    let each = read(json!([NOW - 30 * MINUTE, NOW - 30 * MINUTE - 1]));
    assert_eq!(
        each["rows"].as_array().unwrap().iter().map(|r| r["txn_count_1h"].clone()).collect::<Vec<_>>(),
        [json!(2), json!(1)]
    );
    assert_eq!(each["as_of"][1], "2026-03-01T11:29:59.999999Z");
}

#[test]
fn a_view_joined_twice_answers_by_its_aliases() {
    let server = Server::with_events();
    let answer = server.post("/v1/services/transfer_v1", &json!({"rows": [{"sender": 1, "receiver": 2}]})).expect(200);
    assert_eq!(answer["rows"], json!([{"sent": 2, "received": 1}]));
    assert_eq!(
        answer["views"],
        json!({"a": {"status": ["PRESENT"], "age_seconds": [600.0]}, "b": {"status": ["PRESENT"], "age_seconds": [60.0]}})
    );
}

#[test]
fn values_of_every_type_come_back_as_they_were_sent() {
    let server = Server::with_events();
    let row = json!({
        "a": i64::MIN, "b": "NaN", "c": "-12345678.90", "d": "2026-01-31T13:45:00.000001Z", "e": "1969-12-31", "f": "é\"\n",
        "g": true, "h": "AP8=", "i": [1, null, i64::MAX], "j": -32768,
    });
    let exact = server.post("/v1/services/echo_v1", &json!({"rows": [row]}));
    assert_eq!(exact.expect(200)["rows"][0], row);
    assert!(exact.text.contains(&i64::MIN.to_string()), "{}", exact.text);
    let nulls = json!({"a": null, "b": null, "c": null, "d": null, "e": null, "f": null, "g": null, "h": null, "i": null, "j": null});
    assert_eq!(server.post("/v1/services/echo_v1", &json!({"rows": [nulls]})).expect(200)["rows"][0], nulls);
    let mut other = nulls.clone();
    other["c"] = json!(12.5);
    other["d"] = json!(-1);
    other["b"] = json!(0.1 + 0.2);
    let answer = server.post("/v1/services/echo_v1", &json!({"rows": [other]})).expect(200)["rows"][0].clone();
    assert_eq!(
        (&answer["c"], &answer["d"], &answer["b"]),
        (&json!("12.50"), &json!("1969-12-31T23:59:59.999999Z"), &json!(0.1 + 0.2))
    );
}

#[test]
fn a_view_reads_one_key_or_many() {
    let server = Server::with_events();
    assert_eq!(
        server.get("/v1/views/user_spend?user_id=1").expect(200),
        json!({
            "view": "user_spend",
            "row": {"user_id": 1, "txn_count_1h": 2, "spend_1h": 20.5, "last_at": "2026-03-01T11:50:00.000000Z", "last_country": "SE"},
            "status": "PRESENT",
            "age_seconds": 600.0,
            "as_of": "2026-03-01T12:00:00.000000Z",
        })
    );
    let past = server.get("/v1/views/user_spend?user_id=1&as_of=2026-03-01T12:35:00%2B01:00").expect(200);
    assert_eq!((&past["row"]["txn_count_1h"], &past["as_of"]), (&json!(1), &json!("2026-03-01T11:35:00.000000Z")));
    assert_eq!(
        server.get(&format!("/v1/views/user_spend?user_id=1&as_of={NOW}")).expect(200)["row"]["txn_count_1h"],
        2
    );
    // Before the key's first event.
    let old = server.get("/v1/views/user_spend?user_id=1&as_of=2026-02-01T00:00:00Z").expect(200);
    assert_eq!((&old["status"], &old["row"]["txn_count_1h"]), (&json!("NOT_FOUND"), &json!(0)));

    let many = server
        .post("/v1/views/user_spend", &json!({"keys": [{"user_id": 2}, {"user_id": 3}], "as_of": NOW}))
        .expect(200);
    assert_eq!(many["rows"][0]["spend_1h"], 7.0);
    assert_eq!(
        many["rows"][1],
        json!({"user_id": 3, "txn_count_1h": 0, "spend_1h": null, "last_at": null, "last_country": null})
    );
    assert_eq!((&many["status"], &many["age_seconds"]), (&json!(["PRESENT", "NOT_FOUND"]), &json!([60.0, null])));
}

#[test]
fn an_instant_that_the_store_no_longer_covers_is_said_to_be_so() {
    let server = Server::start(config());
    let three_days = 3 * 24 * 60;
    server.push(&[event("old", 1, 1.0, three_days), event("new", 1, 2.0, 0)]);
    server.drain();
    let then = NOW - (three_days - 5) * MINUTE;
    let answer = server.get(&format!("/v1/views/user_spend?user_id=1&as_of={then}")).expect(200);
    assert_eq!(answer["status"], "OUTSIDE_RETENTION");
    assert_eq!((&answer["row"]["txn_count_1h"], &answer["row"]["spend_1h"]), (&json!(null), &json!(null)));
}

#[test]
fn a_view_with_two_keys_takes_both_by_name() {
    let server = Server::with_events();
    let one = server.get("/v1/views/user_country?country=SE&user_id=1").expect(200);
    assert_eq!(one["row"], json!({"user_id": 1, "country": "SE", "recent": 3}));
    let many = json!({"keys": [{"country": "SE", "user_id": 2}, {"user_id": 2, "country": null}]});
    let many = server.post("/v1/views/user_country", &many).expect(200);
    assert_eq!(many["status"], json!(["PRESENT", "NULL_KEY"]));
    assert_eq!(many["rows"][0], json!({"user_id": 2, "country": "SE", "recent": 1}));
}

#[test]
fn a_division_by_zero_names_the_feature() {
    let server = Server::with_events();
    assert_eq!(server.get("/v1/views/user_inverse?user_id=1").expect(200)["row"]["inverse"], 500);
    let view = server.get("/v1/views/user_inverse?user_id=9").problem(422);
    assert!(view["errors"][0]["field"] == "inverse" && view["detail"].as_str().unwrap().contains("zero"), "{view}");
    let service = server.post("/v1/services/parts_v1", &json!({"rows": [{"cents": 100, "parts": 0}]})).problem(422);
    assert_eq!(service["errors"][0]["field"], "cents_per_part", "{service}");
    assert_eq!(service["errors"][0]["hint"], "guard it in the definition: a / NULLIF(b, 0)");
    assert_eq!(service["type"], "urn:tidemark:problem:evaluation");
}
