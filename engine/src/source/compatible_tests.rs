use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::{Decoder, Encoder, Message};
use super::*;

fn contract(fields: &str) -> Contract {
    Contract::parse("t.v1", &format!(r#"{{"type":"record","name":"T","fields":[{fields}]}}"#)).unwrap()
}

#[derive(Debug, PartialEq)]
enum Reads {
    All,
    Some,
    None,
}

/// What is found is what the decoder does: a pair of types, a value that can be written, and another one.
#[test]
fn what_is_found_is_what_the_decoder_does() {
    let long = r#"{"name":"f","type":"long"}"#;
    let typed = |json: &str| format!(r#"{{"name":"f","type":{json}}}"#);
    let logical = |base: &str, name: &str| typed(&format!(r#"{{"type":"{base}","logicalType":"{name}"}}"#));
    let symbols = |list: &str| typed(&format!(r#"{{"type":"enum","name":"K","symbols":{list}}}"#));
    let record = |fields: &str| typed(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#));
    let one = |value: Json| vec![value.clone(), value];
    let cases: Vec<(String, String, Vec<Json>, Reads)> = vec![
        (typed(r#""int""#), long.into(), one(json!(1)), Reads::All),
        (typed(r#""int""#), typed(r#""float""#), one(json!(1)), Reads::All),
        (typed(r#""long""#), typed(r#""double""#), one(json!(1)), Reads::All),
        (typed(r#""float""#), typed(r#"["null","double"]"#), one(json!(1)), Reads::All),
        (typed(r#""string""#), typed(r#""bytes""#), one(json!("x")), Reads::All),
        (long.into(), typed(r#""int""#), one(json!(1)), Reads::None),
        (typed(r#""double""#), typed(r#""float""#), one(json!(1)), Reads::None),
        (typed(r#""string""#), long.into(), one(json!("1")), Reads::None),
        (typed(r#""boolean""#), typed(r#""int""#), one(json!(true)), Reads::None),
        (typed(r#"["null","long"]"#), long.into(), vec![json!(1), Json::Null], Reads::Some),
        (typed(r#"["long","null"]"#), typed(r#"["null","long"]"#), vec![json!(1), Json::Null], Reads::All),
        (long.into(), logical("long", "timestamp-micros"), one(json!(1)), Reads::None),
        (logical("long", "timestamp-millis"), logical("long", "timestamp-micros"), one(json!(1000)), Reads::None),
        (logical("int", "date"), typed(r#""int""#), one(json!("2020-01-01")), Reads::None),
        (
            typed(r#""string""#),
            logical("string", "uuid"),
            one(json!("67e55044-10b1-426f-9247-bb680e5fe0c8")),
            Reads::All,
        ),
        (symbols(r#"["A","B"]"#), symbols(r#"["B","C","A"]"#), vec![json!("A"), json!("B")], Reads::All),
        (symbols(r#"["A","B"]"#), symbols(r#"["A"]"#), vec![json!("A"), json!("B")], Reads::Some),
        (symbols(r#"["A","B"]"#), symbols(r#"["C"]"#), vec![json!("A"), json!("B")], Reads::None),
        (
            symbols(r#"["A","B"]"#),
            typed(r#"{"type":"enum","name":"K","symbols":["A"],"default":"A"}"#),
            vec![json!("A"), json!("B")],
            Reads::All,
        ),
        (symbols(r#"["A"]"#), typed(r#"{"type":"enum","name":"L","symbols":["A"]}"#), one(json!("A")), Reads::None),
        (
            symbols(r#"["A"]"#),
            typed(r#"{"type":"enum","name":"L","symbols":["A"],"aliases":["K"]}"#),
            one(json!("A")),
            Reads::All,
        ),
        (long.into(), r#"{"name":"g","type":"long"}"#.into(), one(json!(1)), Reads::None),
        (long.into(), r#"{"name":"g","type":["null","long"]}"#.into(), one(json!(1)), Reads::None),
        (long.into(), r#"{"name":"g","type":"long","aliases":["f"]}"#.into(), one(json!(1)), Reads::All),
        (long.into(), r#"{"name":"g","type":"string","default":"d"}"#.into(), one(json!(1)), Reads::All),
        (
            record(r#"{"name":"a","type":"int"}"#),
            record(r#"{"name":"b","type":"int","default":3},{"name":"a","type":"long"}"#),
            one(json!({"a": 1})),
            Reads::All,
        ),
        (
            record(r#"{"name":"a","type":"int"}"#),
            record(r#"{"name":"b","type":"int"}"#),
            one(json!({"a": 1})),
            Reads::None,
        ),
        (
            typed(r#"{"type":"array","items":"int"}"#),
            typed(r#"{"type":"array","items":"long"}"#),
            one(json!([1, 2])),
            Reads::All,
        ),
        (
            typed(r#"{"type":"map","values":"long"}"#),
            typed(r#"{"type":"map","values":"int"}"#),
            one(json!({"k": 1})),
            Reads::None,
        ),
        (
            typed(r#"{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}"#),
            typed(r#"{"type":"bytes","logicalType":"decimal","precision":8,"scale":2}"#),
            one(json!("1.25")),
            Reads::None,
        ),
        (
            typed(r#"{"type":"fixed","name":"X","size":2}"#),
            typed(r#"{"type":"fixed","name":"X","size":3}"#),
            one(json!("AAA=")),
            Reads::None,
        ),
    ];
    for (writer, reader, values, expected) in cases {
        let case = format!("{writer} read as {reader}");
        let (writer, reader) = (Arc::new(contract(&writer)), Arc::new(contract(&reader)));
        let found = unreadable(writer.json(), &reader).unwrap();
        let verdict = match found.first() {
            None => Reads::All,
            Some(_) if found.iter().all(|f| f.partly) => Reads::Some,
            Some(_) => Reads::None,
        };
        assert_eq!(verdict, expected, "{case}: {found:?}");
        let encoder = Encoder::new(Arc::clone(&writer)).framed_by(1);
        let messages: Vec<Message> = values
            .iter()
            .map(|value| encoder.encode(&json!({ "f": value })).unwrap())
            .zip(0..)
            .map(|(payload, offset)| Message { offset, ingested_at: 0, payload })
            .collect();
        let writers = HashMap::from([(WriterId::Registry(1), writer.json().to_owned())]);
        let decoded = Decoder::new(reader, Arc::new(writers), None).unwrap().decode(0, &messages).unwrap();
        let done = match decoded.events.num_rows() {
            0 => Reads::None,
            rows if rows == messages.len() => Reads::All,
            _ => Reads::Some,
        };
        assert_eq!(done, expected, "{case}: {:?}", decoded.rejects);
    }
}

#[test]
fn every_field_that_changed_is_named() {
    let writer = contract(
        r#"{"name":"a","type":"string"},{"name":"b","type":["null","int"]},
           {"name":"home","type":["null",{"type":"record","name":"H","fields":[{"name":"city","type":"bytes"}]}]},
           {"name":"tags","type":{"type":"array","items":"string"}}"#,
    );
    let reader = contract(
        r#"{"name":"a","type":"int"},{"name":"b","type":"int"},{"name":"c","type":"int"},
           {"name":"home","type":["null",{"type":"record","name":"H","fields":[{"name":"city","type":"boolean"}]}]},
           {"name":"tags","type":{"type":"array","items":"long"}}"#,
    );
    let found = unreadable(writer.json(), &reader).unwrap();
    let fields: Vec<&str> = found.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, ["a", "b", "c", "home.city", "tags[]"]);
    assert_eq!(found.iter().map(|f| f.partly).collect::<Vec<_>>(), [false, true, false, false, false]);
    assert_eq!(
        found[0].to_string(),
        "field \"a\" is written as string and can't be read as int; expected string, or a type that Avro promotes it to; \
         hint: give the field with the new meaning a new name, and a default"
    );
    assert_eq!(unreadable(reader.json(), &reader).unwrap(), []);
    assert!(unreadable("{", &reader).is_err() && unreadable("\"long\"", &reader).is_err());
}

#[test]
fn a_writers_union_of_several_types_is_looked_at_one_by_one() {
    let reader = contract(r#"{"name":"f","type":["null","double"]}"#);
    let of = |union: &str| format!(r#"{{"type":"record","name":"T","fields":[{{"name":"f","type":{union}}}]}}"#);
    let verdict = |union: &str| unreadable(&of(union), &reader).unwrap().first().map(|f| (f.partly, f.problem.clone()));
    assert_eq!(verdict(r#"["null","int","long"]"#), None);
    let (partly, problem) = verdict(r#"["null","int","string"]"#).unwrap();
    assert!(partly && problem.contains("a union of null, int, string"), "{problem}");
    assert!(!verdict(r#"["boolean","string"]"#).unwrap().0);
    let instants = r#"["int",{"type":"long","logicalType":"timestamp-micros"}]"#;
    assert!(verdict(instants).unwrap().0);
}
