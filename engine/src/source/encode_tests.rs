use serde_json::json;

use super::*;

fn encoder() -> Encoder {
    let contract = Contract::parse(
        "t.v1",
        r#"{"type":"record","name":"T","fields":[
            {"name":"user_id","type":"long"},
            {"name":"amount","type":"double"},
            {"name":"small","type":"int","default":7},
            {"name":"note","type":["null","string"],"default":null},
            {"name":"required_note","type":["null","string"]},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"kind","type":{"type":"enum","name":"K","symbols":["card","cash"]},"default":"card"},
            {"name":"home","type":["null",{"type":"record","name":"H","fields":[{"name":"city","type":"string"}]}],"default":null},
            {"name":"tags","type":{"type":"array","items":"string"},"default":[]}
        ]}"#,
    );
    Encoder::new(Arc::new(contract.unwrap()))
}

fn good() -> Json {
    json!({"user_id": 1, "amount": 2.5, "required_note": null, "at": "2026-01-02T03:04:05.678901Z"})
}

#[test]
fn a_record_with_defaults_is_taken() {
    let payload = encoder().encode(&good()).unwrap();
    assert_eq!(&payload[..2], &[0xC3, 0x01]);
    for (field, value) in [
        ("amount", json!("NaN")),
        ("amount", json!("-Infinity")),
        ("amount", json!(3)),
        ("note", json!("x")),
        ("at", json!(-5)),
        ("home", json!({"city": "Bern"})),
        ("tags", json!(["a"])),
    ] {
        let mut record = good();
        record[field] = value;
        encoder().encode(&record).unwrap();
    }
}

#[test]
fn a_refusal_names_field_found_expected_and_hint() {
    let cases = [
        ("amount", json!("2.5"), r#"field "amount": found string "2.5", expected a double; hint: remove the quotes"#),
        ("amount", Json::Null, r#"field "amount": found null, expected a double"#),
        ("user_id", json!(1.5), r#"field "user_id": found number 1.5, expected a long"#),
        ("user_id", json!(u64::MAX), r#"expected a long (64 bits, signed)"#),
        (
            "small",
            json!(3_000_000_000_i64),
            r#"field "small": found number 3000000000, expected an int (32 bits, signed)"#,
        ),
        (
            "amont",
            json!(1),
            r#"field "amont": found a field that the contract does not have, expected one of user_id, amount"#,
        ),
        ("amont", json!(1), r#"hint: did you mean "amount"?"#),
        (
            "kind",
            json!("carde"),
            r#"field "kind": found string "carde", expected one of card, cash; hint: did you mean "card"?"#,
        ),
        ("at", json!("2026-01-02 03:04"), "expected a timestamp"),
        ("at", json!("2026-01-02T03:04:05"), "hint: add the zone: \"2026-01-02T03:04:05Z\""),
        ("at", json!(1.5), "integer microseconds"),
        ("home", json!({"city": 1}), r#"field "home.city": found number 1, expected a string"#),
        ("home", json!({"city": "B", "cty": "C"}), r#"field "home.cty": found a field"#),
        ("tags", json!(["a", 2]), r#"field "tags[1]": found number 2, expected a string"#),
        ("note", json!(["x"]), r#"field "note": found an array, expected a string"#),
    ];
    for (field, value, expected) in cases {
        let mut record = good();
        record[field] = value;
        let error = encoder().encode(&record).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected}\nfound    {error}");
    }
    let mut record = good();
    record.as_object_mut().unwrap().remove("required_note");
    let error = encoder().encode(&record).unwrap_err().to_string();
    assert!(error.contains("found nothing") && error.contains("send null"), "{error}");
    assert!(encoder().encode(&json!([1])).unwrap_err().to_string().contains("expected an object"));
}

#[test]
fn one_bad_record_does_not_touch_the_others() {
    let results = encoder().encode_batch(&[good(), json!({}), good()], 0);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(results[0], results[2]);
}
