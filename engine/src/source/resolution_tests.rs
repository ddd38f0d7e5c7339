//! Evolution mid-stream: what older and newer schemas wrote, read under one contract, in one batch.

use arrow::array::{Float64Array, Int64Array, StringArray};
use serde_json::{Value as Json, json};

use super::super::encode::Encoder;
use super::super::registry::SchemaRegistry;
use super::*;

const V1: &str = r#"{"type":"record","name":"T","fields":[
    {"name":"id","type":"int"},{"name":"x","type":"float"},{"name":"gone","type":"string","default":""}]}"#;
/// Two wider types, one field less, two more.
const V2: &str = r#"{"type":"record","name":"T","fields":[
    {"name":"new","type":"string","default":"none"},{"name":"x","type":"double"},{"name":"id","type":"long"},
    {"name":"note","type":["null","string"],"default":null}]}"#;
/// As V1, with one more field.
const V1_AND_MORE: &str = r#"{"type":"record","name":"T","fields":[
    {"name":"more","type":"string","default":"m"},{"name":"id","type":"int"},{"name":"x","type":"float"}]}"#;

/// Contracts by their id in a registry.
type Known = [(u32, Arc<Contract>)];

fn contract(json: &str) -> Arc<Contract> {
    Arc::new(Contract::parse("t.v1", json).unwrap())
}

fn decoder(reader: &Arc<Contract>, known: &Known) -> Decoder {
    let writers: HashMap<WriterId, String> = known
        .iter()
        .flat_map(|(id, c)| {
            [WriterId::Registry(*id), WriterId::Rabin(c.fingerprint())].map(|writer| (writer, c.json().to_owned()))
        })
        .collect();
    Decoder::new(Arc::clone(reader), Arc::new(writers), None).unwrap()
}

/// Records of different writers, each framed in both ways, in their order.
fn sent(known: &Known, records: &[(u32, Json)]) -> Vec<Message> {
    let encode = |(id, record): &(u32, Json)| {
        let (_, contract) = known.iter().find(|(known, _)| known == id).unwrap();
        let encoder = Encoder::new(Arc::clone(contract));
        [encoder.encode(record).unwrap(), encoder.framed_by(*id).encode(record).unwrap()]
    };
    let payloads = records.iter().flat_map(encode);
    payloads.zip(0..).map(|(payload, offset)| Message { offset, ingested_at: 0, payload }).collect()
}

fn longs(decoded: &Decoded, column: &str) -> Vec<i64> {
    decoded.events[column].as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
}

fn texts<'a>(decoded: &'a Decoded, column: &str) -> Vec<Option<&'a str>> {
    decoded.events[column].as_any().downcast_ref::<StringArray>().unwrap().iter().collect()
}

#[test]
fn a_newer_consumer_reads_older_records_among_newer_ones() {
    let known = [(1, contract(V1)), (2, contract(V2)), (3, contract(V1_AND_MORE))];
    let records: Vec<(u32, Json)> = (0..30)
        .map(|i| match i % 3 {
            0 => (1, json!({"id": i, "x": 0.5, "gone": "bye"})),
            1 => (2, json!({"id": i, "x": 0.1, "new": "n", "note": "hm"})),
            _ => (3, json!({"id": i, "x": -0.25, "more": "m"})),
        })
        .collect();
    let decoded = decoder(&known[1].1, &known).decode(0, &sent(&known, &records)).unwrap();
    assert_eq!(decoded.rejects, []);
    assert_eq!(longs(&decoded, "id"), (0..30).flat_map(|i| [i, i]).collect::<Vec<_>>());
    let xs = decoded.events["x"].as_any().downcast_ref::<Float64Array>().unwrap().values().to_vec();
    assert_eq!(xs, [0.5, 0.5, 0.1, 0.1, -0.25, -0.25].repeat(10));
    assert_eq!(texts(&decoded, "new"), ["none", "none", "n", "n", "none", "none"].map(Some).repeat(10));
    assert_eq!(texts(&decoded, "note"), [None, None, Some("hm"), Some("hm"), None, None].repeat(10));
}

#[test]
fn an_older_consumer_reads_newer_records_and_rejects_what_no_longer_fits() {
    // A producer that went on to narrower types and another field is read; Avro widens, so wider types are not.
    let wide = contract(&V1.replace(r#""int""#, r#""long""#).replace(r#""float""#, r#""double""#));
    let known = [(1, wide), (2, contract(V2)), (3, contract(V1_AND_MORE))];
    let records = [
        (1, json!({"id": 0, "x": 0.1, "gone": "a"})),
        (3, json!({"id": 1, "x": 0.5, "more": "b"})),
        (2, json!({"id": 2, "x": 0.1, "new": "n"})),
        (1, json!({"id": 3, "x": 0.2, "gone": "c"})),
    ];
    let messages = sent(&known, &records);
    let decoded = decoder(&known[0].1, &known).decode(0, &messages).unwrap();
    assert_eq!(decoded.rejects, []);
    assert_eq!(longs(&decoded, "id"), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(texts(&decoded, "gone"), ["a", "a", "", "", "", "", "c", "c"].map(Some));

    let first = contract(V1);
    let decoded = decoder(&first, &known).decode(0, &messages).unwrap();
    assert_eq!(decoded.events["id"].len(), 2);
    assert_eq!(longs_of_offsets(&decoded), [2, 3]);
    let reasons: Vec<&str> = decoded.rejects.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(decoded.rejects.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 4, 5, 6, 7]);
    for reason in reasons {
        let said = ["field \"id\" is written as long and can't be read as int", "hint: a type only ever gets wider"];
        assert!(said.iter().all(|said| reason.contains(said)), "{reason}");
    }
}

fn longs_of_offsets(decoded: &Decoded) -> Vec<i64> {
    longs(decoded, super::super::OFFSET)
}

#[test]
fn incompatible_schemas_are_rejected_with_their_reason_and_the_others_survive() {
    let reader = contract(
        r#"{"type":"record","name":"T","fields":[{"name":"id","type":"long"},{"name":"at","type":["null","string"]}]}"#,
    );
    let record =
        |name: &str, fields: &str| contract(&format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#));
    let known = [
        (1, Arc::clone(&reader)),
        (2, record("T", r#"{"name":"id","type":"string"},{"name":"at","type":"string"}"#)),
        (3, record("T", r#"{"name":"id","type":"int"}"#)),
        (4, record("Other", r#"{"name":"id","type":"long"},{"name":"at","type":"string"}"#)),
        (5, record("T", r#"{"name":"id","type":"int"},{"name":"at","type":"string"},{"name":"z","type":"int"}"#)),
    ];
    let records = [
        (1, json!({"id": 0, "at": null})),
        (2, json!({"id": "x", "at": "a"})),
        (3, json!({"id": 1})),
        (1, json!({"id": 2, "at": "b"})),
        (4, json!({"id": 3, "at": "c"})),
        (5, json!({"id": 4, "at": "d", "z": 1})),
    ];
    let messages = sent(&known, &records);
    let mut decoder = decoder(&reader, &known);
    let decoded = decoder.decode(0, &messages).unwrap();
    assert_eq!(longs(&decoded, "id"), [0, 0, 2, 2, 4, 4]);
    let expected = [
        (2, "field \"id\" is written as string and can't be read as long"),
        (3, "field \"id\" is written as string and can't be read as long"),
        (4, "field \"at\" was not written, and has no default"),
        (5, "field \"at\" was not written, and has no default"),
        (8, "the record is written as a type called Other and would be read as T"),
        (9, "the record is written as a type called Other and would be read as T"),
    ];
    for ((offset, reason), reject) in expected.into_iter().zip(&decoded.rejects) {
        assert_eq!(reject.offset, offset);
        assert!(reject.reason.contains(reason) && reject.reason.contains("hint: "), "{}", reject.reason);
        assert_eq!(reject.payload, messages[offset as usize].payload);
    }
    assert_eq!(decoded.rejects.len(), expected.len());
    assert!(decoded.rejects[1].reason.starts_with("writer schema with registry id 2 can't be read as t.v1: "));
    assert_eq!(decoder.decode(0, &messages).unwrap().rejects, decoded.rejects);
}

#[test]
fn a_reference_is_read_by_the_writers_definition_and_namespaces_do_not_matter() {
    let writer = contract(
        r#"{"type":"record","name":"T","namespace":"a.b","fields":[
            {"name":"dropped","type":{"type":"enum","name":"K","symbols":["A","B","C"]}},
            {"name":"kind","type":"K"},
            {"name":"first","type":{"type":"record","name":"R","fields":[{"name":"n","type":"int"},{"name":"s","type":"string"}]}},
            {"name":"then","type":["null","R"]}]}"#,
    );
    let reader = contract(
        r#"{"type":"record","name":"T","namespace":"other","fields":[
            {"name":"kind","type":{"type":"enum","name":"K","symbols":["C","B","A"]}},
            {"name":"then","type":["null",{"type":"record","name":"R","fields":[{"name":"s","type":"string"},{"name":"n","type":"long"}]}]},
            {"name":"first","type":"R"}]}"#,
    );
    let known = [(1, writer)];
    let records = [(1, json!({"dropped": "C", "kind": "A", "first": {"n": 1, "s": "x"}, "then": {"n": 2, "s": "y"}}))];
    let decoded = decoder(&reader, &known).decode(0, &sent(&known, &records)).unwrap();
    assert_eq!(decoded.rejects, []);
    let mut lines = arrow::json::writer::LineDelimitedWriter::new(Vec::new());
    lines.write(&decoded.events).unwrap();
    lines.finish().unwrap();
    let lines = String::from_utf8(lines.into_inner()).unwrap();
    for line in lines.lines() {
        assert!(line.contains(r#""kind":"A","then":{"s":"y","n":2},"first":{"s":"x","n":1}"#), "{line}");
    }
    assert_eq!(lines.lines().count(), 2);
}

#[test]
fn an_unknown_id_is_rejected_until_it_is_known() {
    #[derive(Default)]
    struct Later(std::sync::Mutex<(HashMap<WriterId, String>, usize)>);
    impl WriterSchemas for Later {
        fn schema(&self, writer: WriterId) -> Result<Option<String>, String> {
            let mut known = self.0.lock().unwrap();
            known.1 += 1;
            known.0.schema(writer)
        }
    }
    let reader = contract(V1);
    let later = Arc::new(Later::default());
    let mut decoder = Decoder::new(Arc::clone(&reader), later.clone(), None).unwrap();
    let framed = Encoder::new(Arc::clone(&reader)).framed_by(7);
    let of_log = Encoder::new(Arc::clone(&reader)).encode(&json!({"id": 1, "x": 0})).unwrap();
    let of_registry = framed.encode(&json!({"id": 2, "x": 0})).unwrap();
    let messages: Vec<Message> = (0..10)
        .map(|offset| if offset % 2 == 0 { of_log.clone() } else { of_registry.clone() })
        .zip(0..)
        .map(|(payload, offset)| Message { offset, ingested_at: 0, payload })
        .collect();
    let decoded = decoder.decode(0, &messages).unwrap();
    assert_eq!(longs_of_offsets(&decoded), [0, 2, 4, 6, 8]);
    assert!(decoded.rejects.iter().all(|r| r.reason.contains("unknown writer schema with registry id 7")));
    // The contract's own fingerprint is not looked up, and the id once for the batch.
    assert_eq!(later.0.lock().unwrap().1, 1);
    later.0.lock().unwrap().0.insert(WriterId::Registry(7), V1.into());
    assert_eq!(decoder.decode(0, &messages).unwrap().events.num_rows(), 10);
}

#[test]
fn a_registry_that_does_not_answer_is_an_error_and_no_reject() {
    let reader = contract(V1);
    // Nothing listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let registry = SchemaRegistry::new(&format!("http://127.0.0.1:{port}")).unwrap();
    let mut decoder = Decoder::new(Arc::clone(&reader), Arc::new(registry), None).unwrap();
    let encoder = Encoder::new(reader);
    let message = |payload| Message { offset: 0, ingested_at: 0, payload };
    let of_log = message(encoder.encode(&json!({"id": 1, "x": 0})).unwrap());
    let of_registry = message(encoder.framed_by(7).encode(&json!({"id": 1, "x": 0})).unwrap());
    let error = decoder.decode(0, &[of_log.clone(), of_registry]).unwrap_err();
    assert!(error.contains(&format!("schema registry http://127.0.0.1:{port}")), "{error}");
    assert_eq!(decoder.decode(0, &[of_log]).unwrap().events.num_rows(), 1);
}
