//! Requests that are wrong: each answer is a problem that names the field and what to do.

use serde_json::{Value as Json, json};
use tidemark_serving::Config;

use crate::server::{Server, config};

fn first(problem: &Json) -> String {
    let error = &problem["errors"][0];
    format!(
        "{}: {} [{}]",
        error["field"].as_str().unwrap(),
        error["message"].as_str().unwrap(),
        error["hint"].as_str().unwrap_or("")
    )
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let server = Server::with_events();
    let detail = |path: &str| server.get(path).problem(404)["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail("/v1/views/usr_spend?user_id=1"), "no feature view `usr_spend`; did you mean `user_spend`?");
    assert_eq!(detail("/v1/catalog/view"), "no kind of definition `view`; did you mean `views`?");
    assert_eq!(detail("/v1/catalog/training-sets/x"), "no training set `x`; there is fraud_training");
    assert_eq!(
        detail("/v1/view/user_spend"),
        "nothing is served at /v1/view/user_spend; did you mean /v1/views/user_spend?"
    );
    assert_eq!(detail("/nowhere/at/all"), "nothing is served at /nowhere/at/all");
    let service = server.post("/v1/services/fraud_v2", &json!({"rows": []})).problem(404);
    assert_eq!(service["detail"], "no feature service `fraud_v2`; did you mean `fraud_v1`?");
    let source = server.post("/v1/sources/transaction/events", &json!({"events": []})).problem(404);
    assert_eq!(source["detail"], "no source `transaction`; did you mean `transactions`?");
    assert_eq!(server.post("/v1/services/%ff", &json!({})).problem(400)["type"], "urn:tidemark:problem:malformed");
}

#[test]
fn a_method_that_a_route_does_not_take() {
    let server = Server::with_events();
    let answer = server.delete("/v1/views/user_spend");
    assert_eq!(
        answer.problem(405)["detail"],
        "/v1/views/user_spend does not take DELETE; the Allow header says what it takes"
    );
    assert_eq!(answer.allow.unwrap(), "GET,HEAD,POST");
    assert_eq!(server.get("/v1/services/fraud_v1").problem(405)["type"], "urn:tidemark:problem:method");
}

#[test]
fn rows_that_do_not_fit_name_the_row_and_the_field() {
    let server = Server::with_events();
    let post = |body: Json| server.post("/v1/services/fraud_v1", &body).problem(422);
    let good = json!({"user_id": 1, "amount": 1});
    let rows = post(json!({"rows": [good, good, good, {"user_id": 1, "amount": "abc"}]}));
    assert_eq!(rows["detail"], "rows[3].amount: expected DOUBLE, found \"abc\"");
    assert_eq!(
        first(&post(json!({"rows": [{"user_id": "1", "amount": 1}]}))),
        "rows[0].user_id: expected BIGINT, found \"1\" [remove the quotes]"
    );
    assert_eq!(
        first(&post(json!({"rows": [{"user_id": 1}]}))),
        "rows[0].amount: missing; expected DOUBLE [NULL is said as null]"
    );
    let unknown = post(json!({"rows": [{"user_id": 1, "amount": 1, "amout": 1}]}));
    assert_eq!(first(&unknown), "rows[0].amout: unknown field; expected user_id, amount [did you mean `amount`?]");
    assert_eq!(first(&post(json!({"row": []}))), "row: unknown member; expected rows, as_of [did you mean `rows`?]");
    assert_eq!(first(&post(json!({"as_of": 1}))), "rows: missing; expected an array of objects []");
    assert_eq!(first(&post(json!({"rows": {}}))), "rows: expected an array, found an object []");
    assert_eq!(first(&post(json!([good]))), ": expected an object {\"rows\": …, \"as_of\": …}, found an array of 1 []");
    let instant = post(json!({"rows": [good], "as_of": "2026-03-01T12:00:00"}));
    assert!(first(&instant).ends_with("[add the zone: \"2026-03-01T12:00:00Z\" for UTC]"), "{instant}");
    assert!(first(&post(json!({"rows": [good], "as_of": [1, 2]}))).contains("one for each of the 1 rows, found 2"));
}

#[test]
fn keys_that_do_not_fit_name_the_parameter() {
    let server = Server::with_events();
    let get = |query: &str| first(&server.get(&format!("/v1/views/user_country?{query}")).problem(422));
    assert_eq!(get("user_id=1"), "country: missing; expected VARCHAR [add ?country=… to the path]");
    assert_eq!(get("user_id=x&country=SE"), "user_id: expected BIGINT, found \"x\" []");
    assert_eq!(
        get("user_id=1&country=SE&contry=NO"),
        "contry: unknown parameter; expected user_id, country, as_of [did you mean `country`?]"
    );
    assert_eq!(get("user_id=1&user_id=2&country=SE"), "user_id: given twice [POST reads many keys in one call]");
    assert!(
        get("user_id=1&country=SE&as_of=2026-03-01T12:00:00+01:00")
            .ends_with("[in a query string write the plus sign of the zone as %2B]")
    );
    let post =
        first(&server.post("/v1/views/user_country", &json!({"keys": [{"user_id": 1, "country": 7}]})).problem(422));
    assert_eq!(post, "keys[0].country: expected VARCHAR, found 7 []");
}

#[test]
fn json_that_is_none_is_told_its_line_and_column() {
    let server = Server::with_events();
    let bad = server
        .post_as("/v1/services/fraud_v1", "application/json", b"{\"rows\": [\n  {\"user_id\": }\n]}")
        .problem(400);
    assert_eq!(bad["detail"], "the body is not JSON: line 2, column 15: expected value");
    assert_eq!(server.post_as("/v1/services/fraud_v1", "application/json", b"").status, 400);
    assert_eq!(server.post_as("/v1/services/fraud_v1", "application/json", b"\"\xff\"").status, 400);
    let deep = "[".repeat(100_000);
    assert!(
        server.post_as("/v1/services/fraud_v1", "application/json", deep.as_bytes()).problem(400)["detail"]
            .as_str()
            .unwrap()
            .contains("recursion")
    );
}

#[test]
fn media_types_other_than_json_are_refused() {
    let server = Server::with_events();
    let body = br#"{"rows": []}"#;
    let form = server.post_as("/v1/services/fraud_v1", "application/x-www-form-urlencoded", body).problem(415);
    assert_eq!(form["detail"], "content type application/x-www-form-urlencoded; expected application/json");
    assert_eq!(server.post_as("/v1/services/fraud_v1", "Application/JSON; charset=utf-8", body).status, 200);
    assert_eq!(server.post_as("/v1/services/fraud_v1", "application/x-ndjson", body).status, 415);
    assert_eq!(server.post_as("/v1/sources/transactions/events", "text/csv", b"a,b").status, 415);
}

#[test]
fn limits_hold() {
    let server = Server::start(Config { max_body: 2000, max_rows: 3, max_events: 2, ..config() });
    server.drain();
    let row = json!({"user_id": 1, "amount": 1});
    assert_eq!(server.post("/v1/services/fraud_v1", &json!({"rows": [row, row, row]})).status, 200);
    let rows = server.post("/v1/services/fraud_v1", &json!({"rows": [row, row, row, row]})).problem(413);
    assert_eq!(rows["detail"], "4 rows; one call takes at most 3: split it");
    let keys = vec![json!({"user_id": 1}); 4];
    assert_eq!(
        server.post("/v1/views/user_spend", &json!({"keys": keys})).problem(413)["detail"],
        "4 keys; one call takes at most 3: split it"
    );
    assert_eq!(server.post("/v1/sources/transactions/events", &json!({"events": [1, 2, 3]})).status, 413);
    assert_eq!(server.post_as("/v1/sources/transactions/events", "application/x-ndjson", b"{}\n{}\n{}\n").status, 413);
    let long = server.post("/v1/services/fraud_v1", &json!({"rows": [], "x": "x".repeat(2000)})).problem(413);
    assert_eq!(long["detail"], "the body is longer than 2000 bytes; send less in one call");
}

#[test]
fn a_panic_answers_500_and_says_nothing_of_itself() {
    let server = Server::start(Config { clock: || panic!("secret"), ..config() });
    server.drain();
    let body = json!({"rows": [{"user_id": 1, "amount": 1}]});
    let problem = server.post("/v1/services/fraud_v1", &body).problem(500);
    assert_eq!(problem["detail"], "the server failed on this request; its log says why");
    assert_eq!(server.get("/health").expect(200), json!({"status": "ok"}));
    let metrics = server.get("/metrics").text;
    assert!(
        metrics
            .contains(r#"tidemark_http_requests_total{method="POST",route="/v1/services/{service}",status="500"} 1"#),
        "{metrics}"
    );
}
