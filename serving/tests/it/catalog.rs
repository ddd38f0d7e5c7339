//! The catalogue: what the project defines.

use serde_json::{Value as Json, json};

use crate::server::{Server, config};

#[test]
fn definitions_are_listed_by_kind_and_by_name() {
    let server = Server::start(config());
    let all = server.get("/v1/catalog").expect(200);
    let names = |kind: &str| {
        all[kind].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("sources"), ["old_events", "transactions"]);
    assert_eq!(names("views"), ["user_country", "user_inverse", "user_spend"]);
    assert_eq!(names("services"), ["echo_v1", "fraud_v1", "parts_v1", "transfer_v1"]);
    assert_eq!(
        (names("tables"), names("training_sets")),
        (vec!["labels".to_owned()], vec!["fraud_training".to_owned()])
    );
    assert_eq!(all["views"][2], json!({"name": "user_spend", "description": "Spend per user", "owner": "fraud"}));

    let view = server.get("/v1/catalog/views/user_spend").expect(200);
    assert_eq!(view["keys"], json!([{"name": "user_id", "type": "BIGINT"}]));
    assert_eq!(
        view["features"][0],
        json!({"name": "txn_count_1h", "type": "BIGINT", "description": "Transactions in the last hour"})
    );
    assert_eq!(view["features"][2], json!({"name": "last_at", "type": "TIMESTAMP"}));
    assert_eq!(view["frames"], json!(["RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW"]));
    assert_eq!(
        (&view["source"], &view["lateness"], &view["tile"]),
        (&json!("transactions"), &json!("1 day"), &Json::Null)
    );
    assert!(
        view["sql"].as_str().unwrap().starts_with("CREATE FEATURE VIEW user_spend")
            && !view["fingerprint"].as_str().unwrap().is_empty()
    );

    let service = server.get("/v1/catalog/services/fraud_v1").expect(200);
    assert_eq!(
        service["request"],
        json!([{"name": "user_id", "type": "BIGINT"}, {"name": "amount", "type": "DOUBLE"}])
    );
    assert_eq!(
        service["features"][0],
        json!({"name": "amount", "type": "DOUBLE", "description": "What was asked for"})
    );
    assert_eq!(service["views"], json!(["user_spend"]));

    let source = server.get("/v1/catalog/sources/transactions").expect(200);
    assert_eq!(
        (&source["contract"], &source["pushable"], &source["owner"]),
        (&json!("transactions.v1"), &json!(true), &json!("payments"))
    );
    assert_eq!(source["views"], json!(["user_country", "user_inverse", "user_spend"]));
    let files = server.get("/v1/catalog/sources/old_events").expect(200);
    assert_eq!(
        (&files["location"], &files["format"], &files["pushable"]),
        (&json!("old/*.csv"), &json!("csv"), &json!(false))
    );

    let table = server.get("/v1/catalog/tables").expect(200)[0].clone();
    assert_eq!((&table["present"], &table["location"]), (&json!(false), &json!("data/labels.csv")));
    let set = server.get("/v1/catalog/training-sets/fraud_training").expect(200);
    assert_eq!((&set["service"], &set["timestamp"]), (&json!("fraud_v1"), &json!("label_time")));
    assert_eq!(set["spine"].as_array().unwrap().len(), 4);
}
