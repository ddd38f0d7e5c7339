use super::*;

fn file(path: &str, text: &str) -> Arc<SourceFile> {
    SourceFile::new(path, text)
}

/// What is wrong, as `line:column message`.
fn said(problems: &[Diagnostic]) -> Vec<String> {
    problems.iter().map(|p| format!("{}:{} {}", p.span.line, p.span.column, p.message)).collect()
}

const GOOD: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "doc": "An order.", "fields": [
  {"name": "id", "type": "long", "doc": "Which."},
  {"name": "home", "type": ["null", {"type": "record", "name": "Home", "fields": [
    {"name": "city", "type": "string", "doc": "Where."}]}], "default": null, "doc": "Whither."},
  {"name": "tags", "type": {"type": "array", "items": "int"}, "default": [], "doc": "What kind."}
]}"#;

#[test]
fn a_good_contract_has_no_problem() {
    let (contract, problems) = validate(&file("schemas/shop/orders.v12.avsc", GOOD));
    assert_eq!(said(&problems), Vec::<String>::new());
    assert_eq!(contract.unwrap().name(), "shop/orders.v12");
}

#[test]
fn all_problems_of_a_file_come_at_once_at_their_places() {
    let text = r#"{"type": "record", "name": "Order", "fields": [
  {"name": "id", "type": "long", "doc": "Which.", "type": "long"},
  {"name": "home", "type": ["null", {"type": "record", "name": "Home", "fields": [
    {"name": "city", "type": "string", "doc": " "}]}], "default": null}
]}"#;
    let (contract, problems) = validate(&file("schemas/Order.avsc", text));
    assert!(contract.is_some());
    let expected = [
        "1:1 `schemas/Order.avsc` is no name of a contract's file",
        "2:51 \"type\" is there twice",
        "1:28 the record has no namespace",
        "1:28 the record has no doc",
        "3:12 `home` has no doc",
        "4:14 `home.city` has no doc",
    ];
    assert_eq!(said(&problems), expected);
    assert!(problems.iter().all(|p| p.expected.is_some()), "{problems:?}");
}

#[test]
fn what_is_no_contract_is_said_where_it_stands() {
    let record = |fields: &str| format!("{{\"type\": \"record\", \"name\": \"T\", \"fields\": [\n  {fields}]}}");
    let cases = [
        ("{\"é\": \n  oops}".to_owned(), "2:3 not JSON: expected value"),
        (String::new(), "1:1 not JSON: EOF while parsing a value"),
        (record(r#"{"name": "x", "type": "strin"}"#), "1:1 not an Avro schema: "),
        (record(r#"{"name": "x", "type": "int", "default": "a"}"#), "1:1 not an Avro schema: "),
        (record(r#"{"name": "x", "type": ["int", "string"]}"#), "2:12 `x` is a union of several types"),
        (
            record(
                r#"{"name": "x", "type": {"type": "array", "items": {"type": "record", "name": "R", "fields": [{"name": "y", "type": "null"}]}}}"#,
            ),
            "2:104 `x[].y` is a type that is only null",
        ),
    ];
    for (text, expected) in cases {
        let (contract, problems) = validate(&file("schemas/t.v1.avsc", &text));
        assert!(contract.is_none());
        assert!(said(&problems)[0].starts_with(expected), "{text}\n{:?}", said(&problems));
    }
}

#[test]
fn a_change_that_breaks_is_said_at_its_field() {
    let now = GOOD
        .replace(r#""items": "int""#, r#""items": "string""#)
        .replace(r#""city", "type": "string""#, r#""city", "type": "int""#);
    let file = file("schemas/orders.v1.avsc", &now);
    let (contract, problems) = validate(&file);
    assert_eq!(problems, []);
    let contract = contract.unwrap();
    let found = check_change(&file, &contract, GOOD, "git's HEAD").unwrap();
    let expected = [
        "4:14 `home.city` is written as string and can't be read as int (against git's HEAD)",
        "5:12 `tags[]` is written as int and can't be read as string (against git's HEAD)",
    ];
    assert_eq!(said(&found), expected);
    assert!(found[0].hint.as_ref().unwrap().contains("a new name") && found[0].expected.is_some());
    assert_eq!(check_change(&file, &contract, &now.replace("Which.", "Who."), "x"), Ok(vec![]));
    assert!(check_change(&file, &contract, "{", "x").is_err());
}

#[test]
fn names_are_versioned_and_records_have_their_own() {
    for (name, expected) in [
        ("orders.v1", Some(("orders", 1))),
        ("shop.orders-x.v23", Some(("shop.orders-x", 23))),
        ("orders.v0", None),
        ("orders.v01", None),
        ("orders.v+1", None),
        ("orders.v", None),
        (".v1", None),
        ("1.v1", None),
        ("or ders.v1", None),
        ("orders", None),
    ] {
        assert_eq!(version(name), expected, "{name}");
    }
    let of = |path: &str| {
        let file = file(path, GOOD);
        let contract = validate(&file).0.unwrap();
        (file, contract)
    };
    let contracts = [of("schemas/a.v1.avsc"), of("schemas/a.v2.avsc"), of("schemas/b.v1.avsc")];
    let problems = check_names(&contracts);
    assert_eq!(said(&problems), ["1:28 shop.Order is also the record's name in schemas/a.v1.avsc"]);
    assert_eq!(problems[0].file.path, "schemas/b.v1.avsc");
}
