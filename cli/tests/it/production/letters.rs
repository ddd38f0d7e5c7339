//! Dead letters in a topic: listed, kept whole, sent again.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::harness::{Shop, Topic, events_of, payment};
use crate::support::{CONTRACT, parquet};

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_sent_again() {
    let mut topic = Topic::new("letters").await;
    let shop = Shop::new(&topic, "letters");
    let v2 = CONTRACT.replace(r#""name": "Payment""#, r#""name": "Payment", "doc": "v2""#);
    let whole = topic.version(&v2).encode(&payment(1)).unwrap();
    let unknown: Bytes = [&[0, 0x7f, 0xff, 0xff, 0xff], &whole[5..]].concat().into();
    topic.send_raw(vec![(0, Some(unknown)), (1, None), (2, Some(whole.clone()))]).await;
    assert_eq!(events_of(&shop.drain()), (1, 2));
    let listed = shop.ok(&["dead-letters", "list", "payments"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((&listed[0]["partition"], &listed[0]["offset"]), (&json!(0), &json!(0)));
    assert!(listed[0]["reason"].as_str().unwrap().contains("2147483647"), "{listed}");
    let one = shop.ok(&["dead-letters", "list", "payments", "--reason", "empty"]);
    assert_eq!(one["partition"], 1);
    // Sent again it is no better, and becomes a letter again: at its new place, and only there.
    let replayed = shop.ok(&["dead-letters", "replay", "payments", "--reason", "2147483647"]);
    assert_eq!(replayed, json!({"sent": 1, "kept": 0}));
    let listed = shop.ok(&["dead-letters", "list", "payments"]);
    assert_eq!((&listed["partition"], &listed["offset"]), (&json!(1), &json!(0)), "{listed}");
    assert_eq!(events_of(&shop.drain()), (0, 1));
    let listed = shop.ok(&["dead-letters", "list", "payments"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed.as_array().unwrap().iter().any(|letter| letter["offset"] == 1), "{listed}");
}

/// Producers made a field optional before the contract said so. Once it does, what they sent is sent again, and counts like
/// any other event; in the topic that dead letters go to where the source names none.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_cause_is_mended_is_an_event_after_all() {
    let mut topic = Topic::new("mended").await;
    let shop = Shop::new(&topic, "mended");
    let source = "schema = 'payments.v1', timestamp = 'at', event_id = 'id'";
    let source = format!("CREATE SOURCE payments WITH ({source}, topic = '{}');\n", topic.name);
    shop.project.write("features/sources.sql", source);
    let strict = CONTRACT.replace(r#"["null", "string"], "default": null"#, r#""string""#);
    shop.project.write("schemas/payments.v1.avsc", &strict);
    let noted = |i: usize| {
        let mut event = payment(i);
        event["note"] = json!("a note");
        event
    };
    let (v1, v2) = (topic.version(&strict), topic.version(CONTRACT));
    let message = |i: i32, payload: Result<Bytes, _>| (i % 3, payload.ok());
    topic.send_raw((0..4).map(|i| message(i, v1.encode(&noted(i as usize)))).collect()).await;
    topic.send_raw((4..10).map(|i| message(i, v2.encode(&payment(i as usize)))).collect()).await;
    assert_eq!(events_of(&shop.drain()), (4, 6));
    let list = || shop.ok(&["dead-letters", "list", "payments"]);
    let letters = list();
    assert_eq!(letters.as_array().unwrap().len(), 6);
    assert!(
        letters.as_array().unwrap().iter().all(|letter| letter["reason"].to_string().contains("union")),
        "{letters}"
    );
    let in_default_topic = shop.letters_in(&format!("{}.dead-letter", topic.name));
    assert_eq!(in_default_topic.len(), 6);

    shop.project.write("schemas/payments.v1.avsc", CONTRACT);
    assert_eq!(shop.ok(&["dead-letters", "replay", "payments"]), json!({"sent": 6, "kept": 0}));
    assert_eq!(list(), json!([]));
    assert_eq!(shop.ok(&["dead-letters", "replay", "payments"]), json!({"sent": 0, "kept": 0}));
    assert_eq!(events_of(&shop.drain()), (6, 0));
    assert_eq!(events_of(&shop.drain()), (0, 0));
    assert_eq!(list(), json!([]));
    assert_eq!(shop.counts("user_ever").await, BTreeMap::from([(1, 10)]));
    let mut archived = vec![];
    for batch in parquet(&shop.project.path("data/offline/archive/payments")) {
        let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
        archived.extend(ids.iter().map(|id| id.unwrap().to_owned()));
    }
    archived.sort();
    let sent: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    assert_eq!(archived, sent);
}

/// A message that is longer than a letter may be: its beginning is kept, and the stream goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_message_fits_its_letter() {
    let mut topic = Topic::new("long").await;
    let shop = Shop::new(&topic, "long");
    topic.send_raw(vec![(0, Some(Bytes::from(vec![b'x'; 999_000])))]).await;
    assert_eq!(events_of(&shop.drain()), (0, 1));
    let letters = shop.letters();
    assert!(letters[0].truncated && letters[0].payload.len() == 900_000);
    let replayed: Json = shop.ok(&["dead-letters", "replay", "payments"]);
    assert_eq!(replayed, json!({"sent": 0, "kept": 1}));
}
