//! Which JSON each type takes, and what is said of the rest.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType};
use serde_json::json;

use super::*;

fn schema(fields: &[(&str, DataType)]) -> Schema {
    Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>())
}

fn at(row: usize) -> String {
    format!("rows[{row}]")
}

/// One value of a type: its column, or what is said.
fn one(data_type: DataType, value: Json) -> Result<ArrayRef, String> {
    rows(&schema(&[("x", data_type)]), &[json!({ "x": value })], &at)
        .map(|b| b.column(0).clone())
        .map_err(|e| e.to_string())
}

fn refused(data_type: DataType, value: Json) -> String {
    let problem =
        crate::problem::Problem::from(rows(&schema(&[("x", data_type)]), &[json!({ "x": value })], &at).unwrap_err());
    let errors = problem.member("errors").clone();
    format!("{} {}", errors[0]["message"].as_str().unwrap(), errors[0]["hint"].as_str().unwrap_or(""))
}

#[test]
fn integers_are_exact_and_in_range() {
    let max = one(DataType::Int64, json!(i64::MAX)).unwrap();
    assert_eq!(max.as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!(one(DataType::UInt64, json!(u64::MAX)).unwrap().len(), 1);
    assert_eq!(
        refused(DataType::Int32, json!(3_000_000_000u32)),
        "expected INTEGER, found 3000000000 it is out of range"
    );
    assert_eq!(
        refused(DataType::Int64, json!(u64::MAX)),
        "expected BIGINT, found 18446744073709551615 it is out of range"
    );
    assert_eq!(refused(DataType::UInt8, json!(-1)), "expected TINYINT UNSIGNED, found -1 it is out of range");
    assert_eq!(refused(DataType::Int64, json!(1.5)), "expected BIGINT, found 1.5 it has a fraction");
    assert_eq!(refused(DataType::Int64, json!(2.0)), "expected BIGINT, found 2.0 write it without a point");
    assert_eq!(refused(DataType::Int64, json!("7")), "expected BIGINT, found \"7\" remove the quotes");
    assert_eq!(refused(DataType::Int64, json!(true)), "expected BIGINT, found true ");
}

#[test]
fn doubles_name_what_json_can_not_say() {
    let double = |json| one(DataType::Float64, json).unwrap().as_primitive::<arrow::datatypes::Float64Type>().value(0);
    assert!(double(json!("NaN")).is_nan());
    assert_eq!(double(json!("-Infinity")), f64::NEG_INFINITY);
    assert_eq!(double(json!(-0.0)).to_bits(), (-0.0f64).to_bits());
    assert_eq!(refused(DataType::Float64, json!("abc")), "expected DOUBLE, found \"abc\" ");
    assert_eq!(refused(DataType::Float32, json!(1e300)), "expected REAL, found 1e+300 it has 32 bits");
}

#[test]
fn decimals_are_never_rounded() {
    let decimal = DataType::Decimal128(20, 2);
    let unscaled = |json| one(decimal.clone(), json).unwrap().as_primitive::<Decimal128Type>().value(0);
    assert_eq!(unscaled(json!("-12.5")), -1250);
    assert_eq!(unscaled(json!("0.050")), 5);
    assert_eq!(unscaled(json!(12.5)), 1250);
    assert_eq!(unscaled(json!(123_456_789_012_345_678i64)), 12_345_678_901_234_567_800);
    assert_eq!(unscaled(json!(0)), 0);
    assert!(refused(decimal.clone(), json!(0.001)).ends_with("it has 3 digits after the point"));
    assert!(refused(decimal.clone(), json!("1234567890123456789.00")).ends_with("it has 19 digits before the point"));
    assert!(refused(decimal.clone(), json!(1_234_567_890_123_456.8)).contains("is not exact: write it as text"));
    for bad in ["1e3", "", "-", ".5", "1.2.3", "--1", "£1"] {
        assert!(refused(decimal.clone(), json!(bad)).contains("plain digits"), "{bad}");
    }
    assert_eq!(one(DataType::Decimal128(5, 0), json!("7")).unwrap().as_primitive::<Decimal128Type>().value(0), 7);
}

#[test]
fn instants_and_dates_are_utc() {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let at = one(micros.clone(), json!("1970-01-01T01:00:00+01:00")).unwrap();
    assert_eq!(at.as_primitive::<TimestampMicrosecondType>().value(0), 0);
    let nanos = one(DataType::Timestamp(TimeUnit::Nanosecond, None), json!(1_500)).unwrap();
    assert_eq!(nanos.as_primitive::<TimestampNanosecondType>().value(0), 1_500_000);
    assert!(refused(micros, json!("2026-01-31T13:45:00")).ends_with("add the zone: \"2026-01-31T13:45:00Z\" for UTC"));
    assert!(refused(DataType::Timestamp(TimeUnit::Nanosecond, None), json!(i64::MAX)).contains("can't hold it"));
    assert!(refused(DataType::Timestamp(TimeUnit::Second, None), json!(1)).contains("can't hold it"));
    assert!(one(DataType::Date32, json!("1970-01-02")).is_ok());
    assert!(refused(DataType::Date32, json!(20_000)).ends_with("write it as \"2026-01-31\""));
    assert!(one(DataType::Time64(TimeUnit::Nanosecond), json!("13:45:00.5")).is_ok());
}

#[test]
fn lists_structs_and_bytes_name_the_item() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    let column = one(list.clone(), json!([1, null, 3])).unwrap();
    assert_eq!(column.as_list::<i32>().value(0).as_primitive::<Int32Type>().value(2), 3);
    assert_eq!(one(list.clone(), json!([1, "2"])).unwrap_err(), "rows[0].x[1]: expected INTEGER, found \"2\"");
    assert_eq!(refused(list, json!(1)), "expected an array of INTEGER, found 1 ");
    let inner = DataType::Struct(vec![Field::new("a", DataType::Boolean, true)].into());
    assert!(one(inner.clone(), json!({"a": true})).is_ok());
    assert!(one(inner.clone(), json!(null)).unwrap().is_null(0));
    assert_eq!(one(inner, json!({"a": 1})).unwrap_err(), "rows[0].x.a: expected BOOLEAN, found 1");
    assert_eq!(one(DataType::Binary, json!("AP8=")).unwrap().as_binary::<i32>().value(0), [0, 255]);
    assert!(refused(DataType::Binary, json!("?")).contains("it is not base64"));
    assert_eq!(
        refused(DataType::FixedSizeBinary(3), json!("AP8=")),
        "expected BYTEA, found \"AP8=\" it has 2 bytes, not 3"
    );
}

#[test]
fn every_error_of_every_row_comes_at_once() {
    let schema = schema(&[("user_id", DataType::Int64), ("amount", DataType::Float64)]);
    let bad = [json!({"user_id": 1, "amount": 2}), json!({"usr_id": 1, "amount": "abc"}), json!(7)];
    let problem = crate::problem::Problem::from(rows(&schema, &bad, &at).unwrap_err());
    assert_eq!(
        problem.member("errors"),
        &json!([
            {"field": "rows[1].usr_id", "message": "unknown field; expected user_id, amount", "hint": "did you mean `user_id`?"},
            {"field": "rows[1].user_id", "message": "missing; expected BIGINT", "hint": "NULL is said as null"},
            {"field": "rows[2]", "message": "expected an object with user_id, amount, found 7"},
            {"field": "rows[1].amount", "message": "expected DOUBLE, found \"abc\""},
        ])
    );
    let many: Vec<Json> = (0..100).map(|_| json!(null)).collect();
    assert_eq!(
        rows(&schema, &many, &at).unwrap_err().to_string(),
        "rows[0]: expected an object with user_id, amount, found null (and 99 more)"
    );
    assert_eq!(rows(&schema, &[json!({"user_id": null, "amount": null})], &at).unwrap().num_rows(), 1);
}
