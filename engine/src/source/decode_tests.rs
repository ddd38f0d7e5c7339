use arrow::array::{Float64Array, StringArray};
use arrow::datatypes::Int64Type;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};

use super::super::encode::Encoder;
use super::*;

/// Everything holds of both.
const FRAMINGS: [Framing; 2] = [Framing::SingleObject, Framing::Confluent];

#[derive(Clone, Copy, Debug)]
enum Framing {
    SingleObject,
    Confluent,
}

impl Framing {
    fn header_len(self) -> usize {
        match self {
            Framing::SingleObject => 10,
            Framing::Confluent => 5,
        }
    }

    fn encoder(self, contract: &Arc<Contract>) -> Encoder {
        let encoder = Encoder::new(Arc::clone(contract));
        match self {
            Framing::SingleObject => encoder,
            Framing::Confluent => encoder.framed_by(registry_id(contract)),
        }
    }
}

/// The id that the tests' registry gives a contract.
fn registry_id(contract: &Contract) -> u32 {
    contract.fingerprint() as u32 >> 1
}

const CONTRACT: &str = r#"{"type":"record","name":"T","fields":[
    {"name":"id","type":"long"},
    {"name":"amount","type":["null","double"],"default":null},
    {"name":"name","type":"string"},
    {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
    {"name":"kind","type":{"type":"enum","name":"K","symbols":["card","cash"]}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}},
    {"name":"uuid","type":["null",{"type":"string","logicalType":"uuid"}],"default":null},
    {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
    {"name":"more","type":{"type":"map","values":"long"},"default":{}},
    {"name":"home","type":["null",{"type":"record","name":"H","fields":[
        {"name":"city","type":"string"},{"name":"since","type":{"type":"int","logicalType":"date"}},
        {"name":"opens","type":{"type":"long","logicalType":"time-micros"}}]}],"default":null}
]}"#;

const HOUR: i64 = 3_600_000_000;

fn contract(json: &str) -> Arc<Contract> {
    Arc::new(Contract::parse("t.v1", json).unwrap())
}

fn decoder(contract: &Arc<Contract>, writers: &[&Contract], time: Option<(&str, i64)>) -> Decoder {
    let known = writers.iter().copied().chain([contract.as_ref()]);
    let writers: HashMap<WriterId, String> = known
        .flat_map(|c| {
            [WriterId::Rabin(c.fingerprint()), WriterId::Registry(registry_id(c))].map(|id| (id, c.json().to_owned()))
        })
        .collect();
    Decoder::new(Arc::clone(contract), Arc::new(writers), time).unwrap()
}

fn record(i: i64) -> Json {
    json!({
        "id": i, "amount": if i % 3 == 0 { Json::Null } else { json!(i as f64 / 7.0) }, "name": format!("né {i}"),
        "at": 1_700_000_000_000_000_i64 + i * 1000, "kind": if i % 2 == 0 { "card" } else { "cash" },
        "price": format!("{}.{:02}", i, i % 100), "uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "tags": (0..i % 4).map(|t| format!("t{t}")).collect::<Vec<_>>(), "more": {"a": i},
        "home": if i % 2 == 0 { json!({"city": "Bern", "since": "2020-02-29", "opens": "08:00:00"}) } else { Json::Null }
    })
}

fn messages(framing: Framing, contract: &Arc<Contract>, records: &[Json]) -> Vec<Message> {
    let payloads = framing.encoder(contract).encode_batch(records, 0).into_iter().map(Result::unwrap);
    payloads.zip(100..).map(|(payload, offset)| message(offset, payload)).collect()
}

/// A number as Avro writes it: zigzag, seven bits a byte.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn message(offset: i64, payload: Bytes) -> Message {
    Message { offset, ingested_at: 1_700_000_000_000_000, payload }
}

#[test]
fn what_was_encoded_comes_out_in_the_contracts_columns() {
    for framing in FRAMINGS {
        let contract = contract(CONTRACT);
        let mut decoder = decoder(&contract, &[], Some(("at", HOUR)));
        let records: Vec<Json> = (0..50).map(record).collect();
        let decoded = decoder.decode(3, &messages(framing, &contract, &records)).unwrap();
        assert_eq!(decoded.rejects, []);
        assert_eq!(decoded.events.schema(), event_schema(contract.columns()));
        let mut json = arrow::json::writer::LineDelimitedWriter::new(Vec::new());
        json.write(&decoded.events).unwrap();
        json.finish().unwrap();
        let lines = String::from_utf8(json.into_inner()).unwrap();
        let first: Json = serde_json::from_str(lines.lines().nth(4).unwrap()).unwrap();
        let expected = json!({
            "id": 4, "amount": 4.0 / 7.0, "name": "né 4", "at": "2023-11-14T22:13:20.004Z", "kind": "card",
            "price": 4.04, "uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8", "tags": [], "more": {"a": 4},
            "home": {"city": "Bern", "since": "2020-02-29", "opens": "08:00:00"},
            "_partition": 3, "_offset": 104, "_ingested_at": "2023-11-14T22:13:20Z"
        });
        assert_eq!(first, expected);
        assert_eq!(lines.lines().count(), 50);
    }
}

#[test]
fn an_empty_batch_has_the_columns() {
    let contract = contract(CONTRACT);
    let decoded = decoder(&contract, &[], None).decode(0, &[]).unwrap();
    assert_eq!((decoded.events.num_rows(), decoded.events.schema()), (0, event_schema(contract.columns())));
}

#[test]
fn bad_messages_are_rejected_with_their_reason_and_the_good_ones_survive() {
    for framing in FRAMINGS {
        let contract = contract(CONTRACT);
        let mut decoder = decoder(&contract, &[], Some(("at", HOUR)));
        let good = messages(framing, &contract, &(0..3).map(record).collect::<Vec<_>>());
        let mut unknown = good[0].payload.to_vec();
        unknown[2] ^= 0x40;
        let mut longer = good[0].payload.to_vec();
        longer.push(0);
        let twice = [good[0].payload.as_ref(), good[1].payload.as_ref()].concat();
        let mut not_utf8 = good[0].payload.to_vec();
        let at = not_utf8.windows(2).position(|w| w == "é".as_bytes()).unwrap();
        not_utf8[at] = 0xFF;
        let with = |field: &str, value: Json| {
            let mut json = record(0);
            json[field] = value;
            messages(framing, &contract, &[json])[0].payload.clone()
        };
        let cases: Vec<(Bytes, &str)> = vec![
            (Bytes::new(), "the message is empty"),
            (Bytes::new(), "a tombstone takes no event back"),
            (Bytes::from_static(b"{\"id\": 1}"), "starts with byte 7b; expected Avro single-object encoding"),
            (good[0].payload.slice(..4), "ends within its header"),
            (unknown.into(), "unknown writer schema"),
            (good[0].payload.slice(..framing.header_len()), "ends in the middle"),
            (good[0].payload.slice(..good[0].payload.len() - 1), "varint"),
            (longer.into(), "bytes left over"),
            (twice.into(), "bytes left over"),
            (not_utf8.into(), "UTF-8"),
            (with("at", Json::Null), "\"at\" is NULL; expected the event's time"),
            (
                with("at", json!(1_700_000_000_000_000_i64 + HOUR + 1000)),
                "later than its ingestion at 2023-11-14T22:13:20Z",
            ),
        ];
        for (payload, reason) in cases {
            let batch = [
                good[0].clone(),
                message(200, payload.clone()),
                Message { offset: 201, ..good[1].clone() },
                message(202, payload.clone()),
                Message { offset: 203, ..good[2].clone() },
            ];
            let decoded = decoder.decode(0, &batch).unwrap();
            let ids: Vec<i64> = decoded.events.column(0).as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(ids, [0, 1, 2], "{reason}");
            let offsets: Vec<i64> = decoded.rejects.iter().map(|r| r.offset).collect();
            assert_eq!(offsets, [200, 202], "{reason}");
            assert_eq!(decoded.rejects[0].payload, payload);
            assert!(
                decoded.rejects[0].reason.contains(reason),
                "expected {reason}\nfound    {}",
                decoded.rejects[0].reason
            );
        }
    }
}

#[test]
fn values_that_avro_can_write_but_the_type_cannot_mean_are_rejected() {
    for framing in FRAMINGS {
        let wide = contract(&CONTRACT.replace("\"precision\":6", "\"precision\":30"));
        let narrow = contract(CONTRACT);
        let mut big = record(0);
        big["price"] = json!("123456789.00");
        // The same bytes, said to be of the narrow schema: what a broken producer sends.
        let mut payload = messages(framing, &wide, &[big])[0].payload.to_vec();
        let header = framing.encoder(&narrow).frame(&[]);
        payload[..header.len()].copy_from_slice(&header);
        let mut far = messages(framing, &narrow, &[record(0)])[0].payload.to_vec();
        let at = far.windows(6).position(|w| w == long(1_700_000_000_000).as_slice());
        let decoded = decoder(&narrow, &[], None).decode(0, &[message(1, payload.into())]).unwrap();
        assert!(decoded.rejects[0].reason.contains("\"price\""), "{}", decoded.rejects[0].reason);
        // A millisecond count that no microsecond count can hold.
        let at = at.expect("the timestamp's varint");
        far.splice(at..at + 6, long(i64::MAX / 2));
        let decoded = decoder(&narrow, &[], None).decode(0, &[message(1, far.into())]).unwrap();
        assert!(decoded.rejects[0].reason.contains("\"at\""), "{}", decoded.rejects[0].reason);
    }
}

#[test]
fn older_and_newer_writers_are_resolved_to_the_contract() {
    for framing in FRAMINGS {
        let v1 = contract(
            r#"{"type":"record","name":"T","fields":[{"name":"id","type":"int"},{"name":"gone","type":"string"},
            {"name":"x","type":"float"}]}"#,
        );
        let v2 = contract(
            r#"{"type":"record","name":"T","fields":[{"name":"x","type":["null","double"]},{"name":"id","type":"long"},
            {"name":"new","type":"string","default":"none"},{"name":"extra","type":["null","long"],"default":null}]}"#,
        );
        let old = messages(framing, &v1, &[json!({"id": 7, "gone": "bye", "x": 0.5})]);
        let new = messages(framing, &v2, &[json!({"id": 8, "x": null, "new": "n", "extra": 1})]);
        let mixed: Vec<Message> = (0..6).map(|i| if i % 2 == 0 { old[0].clone() } else { new[0].clone() }).collect();
        let decoded = decoder(&v2, &[&v1], None).decode(0, &mixed).unwrap();
        assert_eq!(decoded.rejects, []);
        let events = decoded.events;
        assert_eq!(
            events["x"].as_any().downcast_ref::<Float64Array>().unwrap().iter().collect::<Vec<_>>(),
            [Some(0.5), None].repeat(3)
        );
        assert_eq!(events["id"].as_primitive::<Int64Type>().values().to_vec(), [7, 8].repeat(3));
        assert_eq!(
            events["new"].as_any().downcast_ref::<StringArray>().unwrap().iter().flatten().collect::<Vec<_>>(),
            ["none", "n"].repeat(3)
        );
    }
}

#[test]
fn a_writer_whose_values_would_change_their_meaning_is_rejected() {
    for framing in FRAMINGS {
        let reader = contract(
            r#"{"type":"record","name":"T","fields":[{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]}]}"#,
        );
        let writer = contract(
            r#"{"type":"record","name":"T","fields":[{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},{"name":"y","type":"long"}]}"#,
        );
        let sent = messages(framing, &writer, &[json!({"at": 1000, "y": 1})]);
        let decoded = decoder(&reader, &[&writer], None).decode(0, &sent).unwrap();
        assert_eq!(decoded.events.num_rows(), 0);
        let reason = &decoded.rejects[0].reason;
        assert!(
            reason.contains("field \"at\" is written as timestamp-millis and would be read as timestamp-micros"),
            "{reason}"
        );
    }
}

#[test]
fn no_bytes_break_it_and_neighbours_are_untouched() {
    for framing in FRAMINGS {
        let contract = contract(CONTRACT);
        let records: Vec<Json> = (0..40).map(record).collect();
        let good = messages(framing, &contract, &records);
        let alone = decoder(&contract, &[], None).decode(0, &good).unwrap().events;
        for seed in 0..400u64 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut decoder = decoder(&contract, &[], None);
            let mut sent = good.clone();
            let mut touched = vec![false; sent.len()];
            for _ in 0..rng.random_range(1..8) {
                let i = rng.random_range(0..sent.len());
                let mut bytes = sent[i].payload.to_vec();
                match rng.random_range(0..5) {
                    0 => bytes.truncate(rng.random_range(0..=bytes.len())),
                    1 => bytes.extend((0..rng.random_range(1..30)).map(|_| rng.random::<u8>())),
                    2 => bytes = (0..rng.random_range(0..60)).map(|_| rng.random()).collect(),
                    _ if bytes.len() > framing.header_len() => {
                        for _ in 0..rng.random_range(1..4) {
                            let at = rng.random_range(framing.header_len()..bytes.len());
                            bytes[at] = rng.random();
                        }
                    }
                    _ => {}
                }
                touched[i] = true;
                sent[i].payload = bytes.into();
            }
            let decoded = decoder.decode(0, &sent).unwrap();
            assert_eq!(decoded.events.num_rows() + decoded.rejects.len(), sent.len(), "seed {seed}");
            let offsets: Vec<i64> = decoded.events[super::super::OFFSET].as_primitive::<Int64Type>().values().to_vec();
            assert!(offsets.is_sorted(), "seed {seed}");
            for (i, touched) in touched.iter().enumerate().filter(|(_, touched)| !**touched) {
                assert!(!touched);
                let row = offsets
                    .iter()
                    .position(|o| *o == good[i].offset)
                    .unwrap_or_else(|| panic!("seed {seed}: message {i} is lost"));
                assert_eq!(decoded.events.slice(row, 1), alone.slice(i, 1), "seed {seed}, message {i}");
            }
        }
    }
}
