//! What a topic may do to its reader: evolve, grow, begin anywhere, and hold what is no event.

use serde_json::{Value as Json, json};

use super::harness::{Shop, Topic, events_of, kafka_tool, owned, payment, random, service};
use crate::crash::{SPAN, START, events};
use crate::support::CONTRACT;

/// The payments of the user that all events are of.
async fn payments(shop: &Shop) -> i64 {
    shop.counts("user_ever").await.get(&1).copied().unwrap_or(0)
}

/// A producer goes from v1 to v2 (a field more, a type widened back) and to one that nobody can read, in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_evolve_in_mid_stream() {
    let mut topic = Topic::new("evolving").await;
    let shop = Shop::new(&topic, "evolving");
    let v1 = topic.version(CONTRACT);
    // An int where the contract has a long is widened; a field that it doesn't have is skipped; one that it has, with a
    // default, may be missing.
    let v2 = CONTRACT
        .replace(
            r#"{"name": "user_id", "type": "long"}"#,
            r#"{"name": "user_id", "type": "int"}, {"name": "device", "type": "string"}"#,
        )
        .replace(r#"{"name": "note", "type": ["null", "string"], "default": null},"#, "");
    let v2 = topic.version(&v2);
    let broken = topic.version(
        &CONTRACT.replace(r#"{"name": "amount", "type": "double"}"#, r#"{"name": "amount", "type": "string"}"#),
    );
    let up = shop.engine(0);
    for i in 0..30 {
        let mut event = payment(i);
        let payload = match i % 3 {
            0 => v1.encode(&event),
            1 => {
                event.as_object_mut().unwrap().remove("note");
                event["device"] = json!("phone");
                v2.encode(&event)
            }
            _ => {
                event["amount"] = json!("much");
                broken.encode(&event)
            }
        };
        topic.send_raw(vec![(i as i32 % 3, Some(payload.unwrap()))]).await;
    }
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    assert_eq!(up.stop(), Some(0));
    assert_eq!(payments(&shop).await, 20);
    let letters = shop.letters();
    assert_eq!(letters.len(), 10);
    assert!(letters.iter().all(|letter| letter.reason.contains("amount")), "{}", letters[0].reason);
}

/// A topic that is deleted and made anew is another one, whose offsets say nothing: nothing is skipped in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_begins_anew_is_refused() {
    let mut topic = Topic::new("anew").await;
    let shop = Shop::new(&topic, "anew");
    let v1 = topic.version(CONTRACT);
    let message = |i: usize| (i as i32 % 3, Some(v1.encode(&payment(i)).unwrap()));
    let up = shop.engine(0);
    topic.send_raw((0..30).map(message).collect()).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    topic.tool(&["--delete"]).unwrap();
    let create = ["--create", "--partitions", "3", "--replication-factor", "1"];
    // Until it is gone, its name is taken.
    while topic.tool(&create).is_err() {}
    topic.producer = Topic::producer_of(&topic.brokers);
    topic.send_raw((30..36).map(message).collect()).await;
    up.wait_until("that it says so", |up| {
        let (status, answer) = up.get("/ready");
        status == 503 && answer.to_string().contains("was the topic deleted")
    });
    drop(up);
    let output = shop.command().args(["stream", "--until-end"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("deleted"));
}

/// A consumer whose contract is ahead of its producers': what v1 wrote is read as v2 has it, beside what v2 wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_v2_reads_what_v1_wrote() {
    let mut topic = Topic::new("ahead").await;
    let shop = Shop::new(&topic, "ahead");
    let v1 = CONTRACT.replace(r#""user_id", "type": "long""#, r#""user_id", "type": "int""#);
    let v1 = v1.replace(r#""amount", "type": "double""#, r#""amount", "type": "float""#);
    // Two types wider, and a field more.
    let device = r#"{"name": "device", "type": "string", "default": "unknown"},"#;
    let v2 = CONTRACT.replace(r#"{"name": "note","#, &format!(r#"{device} {{"name": "note","#));
    shop.project.write("schemas/payments.v2.avsc", &v2);
    let sources = std::fs::read_to_string(shop.project.path("features/sources.sql")).unwrap();
    shop.project.write("features/sources.sql", sources.replace("payments.v1", "payments.v2"));
    let view = "CREATE FEATURE VIEW devices AS
        SELECT device, COUNT(*) OVER ever AS payments, SUM(amount) OVER ever AS spend FROM payments
        WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);";
    shop.project.write("features/devices.sql", view);
    let (v1, v2) = (topic.version(&v1), topic.version(&v2));
    let messages = (0..12).map(|i| {
        let mut event = payment(i);
        let ahead = i % 4 == 3;
        if ahead {
            event["device"] = json!("phone");
        }
        (i as i32 % 3, Some((if ahead { &v2 } else { &v1 }).encode(&event).unwrap()))
    });
    topic.send_raw(messages.collect()).await;
    let up = shop.engine(0);
    up.wait_until("the end", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    let keys = json!([{"device": "unknown"}, {"device": "phone"}]);
    let (status, answer) = up.post("/v1/views/devices", &json!({"keys": keys, "as_of": START + SPAN}));
    assert_eq!(status, 200, "{answer}");
    let expected = json!([
        {"device": "unknown", "payments": 9, "spend": 9.0},
        {"device": "phone", "payments": 3, "spend": 3.0},
    ]);
    assert_eq!(answer["rows"], expected, "{answer}");
    assert_eq!(up.metric("tidemark_source_events_rejected_total", ""), 0.0);
    assert_eq!(up.stop(), Some(0));
    assert_eq!(payments(&shop).await, 12);
}

/// The key of a message is not looked at: those that have none are events like others.
#[tokio::test(flavor = "multi_thread")]
async fn messages_without_a_key_are_events() {
    let mut topic = Topic::new("keyless").await;
    let shop = Shop::new(&topic, "keyless");
    let v1 = topic.version(CONTRACT);
    topic.send_without_keys((0..30).map(|i| v1.encode(&payment(i)).unwrap()).collect()).await;
    // What Kafka's own consumer shows of them: a key that is empty would be an empty line.
    let reading = ["--topic", &topic.name, "--from-beginning", "--max-messages", "30", "--timeout-ms", "20000"];
    let format = ["--property", "print.key=true", "--property", "print.value=false"];
    let args = [&["--bootstrap-server", &topic.brokers], &reading[..], &format[..]].concat();
    let keys = kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &args).unwrap();
    assert_eq!(keys.lines().collect::<Vec<_>>(), ["null"; 30]);
    assert_eq!(events_of(&shop.drain()), (30, 0));
    assert_eq!(payments(&shop).await, 30);
    assert_eq!(shop.archive("payments").1.len(), 30);
}

/// What is durable is committed to Kafka, for its own tools to see.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_knows_what_is_committed() {
    let mut topic = Topic::new("committed").await;
    let shop = Shop::new(&topic, "committed");
    let v1 = topic.version(CONTRACT);
    let message = |i: usize| (i as i32 % 2, Some(v1.encode(&payment(i)).unwrap()));
    topic.send_raw((0..9).map(message).collect()).await;
    shop.drain();
    let group = format!("tidemark.{}.payments", shop.name);
    let describe = ["--bootstrap-server", &topic.brokers, "--describe", "--group", &group];
    let table = kafka_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &describe).unwrap();
    let row = |partition: &str, offset: &str| {
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row.get(2..4) == Some(&[partition, offset]))
    };
    assert!(row("0", "5") && row("1", "4"), "{table}");
}

/// Partitions that are added while an engine runs.
#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_picked_up() {
    let mut topic = Topic::new("growing").await;
    let shop = Shop::with_options(
        &topic,
        "growing",
        &service("REDIS_URL", "redis"),
        ", kafka.topic.metadata.refresh.interval.ms = '500'",
    );
    let v1 = topic.version(CONTRACT);
    let up = shop.engine(0);
    topic.send_raw(vec![(0, Some(v1.encode(&payment(1)).unwrap()))]).await;
    up.wait_until("partitions", |up| owned(up) == 3);
    topic.tool(&["--alter", "--partitions", "5"]).unwrap();
    up.wait_until("the new partitions", |up| owned(up) == 5);
    let producer = Topic::producer_of(&topic.brokers);
    topic.producer = producer;
    topic.send_raw(vec![(4, Some(v1.encode(&payment(2)).unwrap()))]).await;
    up.wait_until("the end", |up| shop.absorbed(&topic, up));
    assert_eq!(up.stop(), Some(0));
    assert_eq!(payments(&shop).await, 2);
}

/// A source that was never read begins where its definition says, and stays with that.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_begins_where_it_says() {
    let mut topic = Topic::new("starting").await;
    let v1 = topic.version(CONTRACT);
    let message = |i: usize| (0, Some(v1.encode(&payment(i)).unwrap()));
    topic.send_raw((0..5).map(message).collect()).await;
    let redis = service("REDIS_URL", "redis");
    let time = |later: i64| {
        let millis = (START + SPAN) / 1000 + later;
        chrono::DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339()
    };
    let (all, none) = (time(0), time(1));
    let mut held = 5;
    for (start, skipped) in [("earliest", 0), ("latest", 5), ("offset 3", 3), (all.as_str(), 0), (none.as_str(), 5)] {
        let before = held - if skipped == 5 { held } else { skipped };
        let shop = Shop::with_options(&topic, "starting", &redis, &format!(", start = '{start}'"));
        assert_eq!(events_of(&shop.drain()), (before, 0), "{start}");
        topic.send_raw(vec![message(held as usize), message(held as usize + 1)]).await;
        held += 2;
        assert_eq!(events_of(&shop.drain()), (2, 0), "{start}");
        assert_eq!(payments(&shop).await, before as i64 + 2, "{start}");
        // A new view fills from there too: what lies before is nobody's.
        let views = std::fs::read_to_string(shop.project.path("features/views.sql")).unwrap();
        let changed = "COUNT(*) OVER ever AS payments, MIN(amount) OVER ever AS least";
        shop.project.write("features/views.sql", views.replace("COUNT(*) OVER ever AS payments", changed));
        shop.drain();
        assert_eq!(payments(&shop).await, before as i64 + 2, "{start}: a new view");
    }
}

/// A start within the topic's time: each partition begins at its first message that is as late, or at its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_begins_in_the_middle_of_its_time() {
    let mut topic = Topic::new("midway").await;
    let v1 = topic.version(CONTRACT);
    let at = |seconds: i64| (START + SPAN) / 1000 + 1000 * seconds;
    let mut i = 0;
    let mut message = |partition| {
        i += 1;
        vec![(partition, Some(v1.encode(&payment(i)).unwrap()))]
    };
    for (partition, seconds) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 3), (2, 0), (2, 1)] {
        topic.send_at(at(seconds), message(partition)).await;
    }
    let redis = service("REDIS_URL", "redis");
    let time = |millis: i64| chrono::DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339();
    // Between two messages, and at the very time of one.
    for (start, expected) in [(at(1) + 500, 3), (at(2), 3), (at(1), 5)] {
        let shop = Shop::with_options(&topic, "midway", &redis, &format!(", start = '{}'", time(start)));
        assert_eq!(events_of(&shop.drain()), (expected, 0), "{start}");
        assert_eq!(payments(&shop).await, expected as i64, "{start}");
    }
    // A partition that has nothing as late is read from its end: what comes then is the next.
    let start = format!(", start = '{}'", time(at(1) + 500));
    let shop = Shop::with_options(&topic, "midway", &redis, &start);
    assert_eq!(events_of(&shop.drain()).0, 3);
    topic.send_at(at(4), message(2)).await;
    assert_eq!(events_of(&shop.drain()), (1, 0));
    assert_eq!(payments(&shop).await, 4);
}

/// Everything is as usual with messages of no key, in one partition, over a topic whose retention took its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_counted_as_lost() {
    let mut random = random();
    let mut topic = Topic::new("lost").await;
    let shop = Shop::new(&topic, "lost");
    let v1 = topic.version(CONTRACT);
    let events = events(&mut random);
    let message = |event: &Json| (0, Some(v1.encode(event).unwrap()));
    topic.send_raw(events[..10].iter().map(message).collect()).await;
    assert_eq!(events_of(&shop.drain()).0, 10);
    topic.send_raw(events[10..30].iter().map(message).collect()).await;
    topic.forget(0, 25).await;
    let up = shop.engine(0);
    up.wait_until("what is left", |up| up.metric("tidemark_source_events_total", "") == 5.0);
    assert_eq!(up.metric("tidemark_source_events_lost_total", ""), 15.0);
    assert_eq!(up.stop(), Some(0));
}
