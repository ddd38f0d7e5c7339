//! Bad input is counted, kept with its reason, and never stops the stream.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};
use tidemark_engine::source::EventLog;

use crate::support::{Project, dead_letters, shop_project};

fn payment(id: &str, user: i64, amount: f64, at: &str) -> Json {
    json!({"id": id, "user_id": user, "shop": "s", "amount": amount, "note": null, "at": at})
}

#[test]
fn pushed_records_are_refused_one_by_one_with_their_reasons() {
    let project = shop_project(1);
    let up = project.up(&["--commit-every", "0.1"]);
    up.wait_until_ready();
    let mut unknown = payment("2", 1, 1.0, "2024-05-01T10:00:00Z");
    unknown["amuont"] = json!(5);
    let mut missing = payment("4", 1, 1.0, "2024-05-01T10:00:00Z");
    missing.as_object_mut().unwrap().remove("shop");
    let events = json!([
        payment("1", 1, 10.0, "2024-05-01T10:00:00Z"),
        unknown,
        json!({"id": "3", "user_id": "one", "shop": "s", "amount": 1.0, "note": null, "at": "2024-05-01T10:00:00Z"}),
        missing,
        "no record at all",
        payment("6", 1, 5.0, "not a time"),
        payment("7", 1, 2.5, "2024-05-01T10:10:00Z"),
    ]);
    let (status, answer) = up.post("/v1/sources/payments/events", &json!({ "events": events }));
    assert!((200..500).contains(&status), "{status} {answer}");
    assert_eq!(answer["accepted"], 2, "{answer}");
    let refused: Vec<(i64, &str)> = answer["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["index"].as_i64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{answer}");
    for ((_, reason), word) in refused.iter().zip(["amuont", "user_id", "shop", "", "at"]) {
        assert!(reason.contains(word) && !reason.is_empty(), "{reason} does not name {word}");
    }

    let read = |as_of: &str| {
        up.post("/v1/services/score", &json!({"rows": [{"user_id": 1, "amount": 6.25}], "as_of": as_of})).1
    };
    up.wait_until("the good events", |_| read("2024-05-01T10:30:00Z")["rows"][0]["payments_1h"] == 2);
    assert_eq!(
        read("2024-05-01T10:30:00Z")["rows"][0],
        json!({"payments_1h": 2, "spend_1h": 12.5, "amount_vs_avg": 1.0})
    );
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn undecodable_records_and_far_futures_go_to_the_dead_letters() {
    let project = shop_project(1);
    // A first run gives the log a record with the right header, to break.
    let up = project.up(&["--commit-every", "0.1"]);
    up.wait_until_ready();
    up.post("/v1/sources/payments/events", &json!({"events": [payment("1", 1, 10.0, "2024-05-01T10:00:00Z")]}));
    let (_, answer) =
        up.post("/v1/sources/payments/events", &json!({"events": [payment("2", 1, 10.0, "2999-01-01T00:00:00Z")]}));
    assert!(answer["refused"][0]["reason"].as_str().unwrap().contains("2999"), "{answer}");
    assert_eq!(up.stop(), Some(0));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    {
        let log = EventLog::open(project.path("data/log.redb")).unwrap();
        let good = log.read("payments", 0, 0, 1, 1 << 20).unwrap().remove(0);
        let truncated = good.payload.slice(..good.payload.len() - 3);
        let mut strange = good.payload.to_vec();
        strange[2..10].fill(0xee);
        let bad: Vec<(i64, bytes::Bytes)> =
            [bytes::Bytes::new(), bytes::Bytes::from_static(b"junk"), truncated, strange.into()]
                .into_iter()
                .map(|payload| (good.timestamp, payload))
                .chain([(0, good.payload.clone())])
                .collect();
        runtime.block_on(log.append("payments", 0, bad)).unwrap();
    }

    let up = project.up(&["--commit-every", "0.1"]);
    up.wait_until_ready();
    let (_, answer) =
        up.post("/v1/sources/payments/events", &json!({"events": [payment("3", 1, 2.0, "2024-05-01T10:20:00Z")]}));
    assert_eq!(answer["accepted"], 1, "{answer}");
    up.wait_until("five are counted", |up| up.metric("tidemark_source_events_rejected_total", "payments") == 5.0);
    let body = json!({"keys": [{"user_id": 1}], "as_of": "2024-05-01T10:30:00Z"});
    up.wait_until("the stream goes on", |up| up.post("/v1/views/user_spend", &body).1["rows"][0]["payments_1h"] == 2);
    assert_eq!(up.stop(), Some(0));

    let letters = dead_letters(&project, "payments");
    let offsets: Vec<i64> = letters.iter().map(|l| l["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5], "{letters:?}");
    assert!(letters.iter().all(|l| !l["reason"].as_str().unwrap().is_empty()));
    assert!(letters[4]["reason"].as_str().unwrap().contains("later than its ingestion at 1970"), "{}", letters[4]);
    // "junk" in base64: the bytes are kept as they came.
    assert_eq!(letters[1]["payload"], "anVuaw==");
}

fn good_parquet(times: &[i64]) -> Vec<u8> {
    let n = times.len();
    let columns: [(&str, ArrayRef); 3] = [
        ("user", Arc::new(StringArray::from(vec!["anna"; n]))),
        ("total", Arc::new(Float64Array::from(vec![1.5; n]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn empty_and_truncated_files_do_not_stop_the_others() {
    const HOUR: i64 = 3_600_000_000;
    let start = 1_714_550_400_000_000; // 2024-05-01T08:00:00Z
    let features = "
CREATE SOURCE visits WITH (connector = 'files', location = 'events/*.parquet', timestamp = 'at');
CREATE FEATURE VIEW user_visits AS
SELECT user, COUNT(*) OVER day AS visits, SUM(total) OVER day AS spent FROM visits
WINDOW day AS (PARTITION BY user ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
";
    let project = Project::new(&[("features/visits.sql", features)]);
    let whole = good_parquet(&[start, start + HOUR]);
    project.write("events/a.parquet", &whole);
    project.write("events/b_empty.parquet", "");
    project.write("events/c_truncated.parquet", &whole[..whole.len() / 2]);
    project.write("events/d_no_parquet.parquet", "user,total\nanna,1\n");
    project.write("events/e.parquet", good_parquet(&[start + 2 * HOUR]));

    let drained = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(drained["sources"]["visits"], json!({"events": 3, "rejected": 3}));
    let letters = dead_letters(&project, "visits");
    for name in ["b_empty", "c_truncated", "d_no_parquet"] {
        let named = letters.iter().filter(|l| l["reason"].as_str().unwrap().contains(name)).count();
        assert_eq!(named, 1, "{name}: {letters:?}");
    }

    let up = project.up(&[]);
    up.wait_until_ready();
    let (status, answer) =
        up.post("/v1/views/user_visits", &json!({"keys": [{"user": "anna"}], "as_of": start + 3 * HOUR}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["rows"][0]["visits"], &answer["rows"][0]["spent"]), (&json!(3), &json!(4.5)));
    assert_eq!(up.stop(), Some(0));
    assert_eq!(fs::read(project.path("events/b_empty.parquet")).unwrap().len(), 0, "the user's files are left alone");
}
