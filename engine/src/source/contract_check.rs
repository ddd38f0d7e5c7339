//! Which Avro types a column can hold.

use apache_avro::Schema;
use apache_avro::schema::{Names, RecordSchema, UuidSchema};

use super::contract::ContractError;

pub(super) struct Problem {
    pub field: String,
    pub problem: String,
    pub expected: String,
    pub hint: String,
}

impl Problem {
    pub(super) fn of(self, name: &str) -> ContractError {
        let Problem { field, problem, expected, hint } = self;
        ContractError::Field { name: name.into(), field, problem, expected, hint }
    }
}

/// Ok if every field is a type that a column can hold; collects the named types.
pub(super) fn check_record(record: &RecordSchema, path: &str, names: &mut Names) -> Result<(), Problem> {
    for field in &record.fields {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        check_type(&field.schema, &path, names)?;
    }
    // Registered only now, when it is complete: a reference from inside it would be recursive.
    names.insert(record.name.clone(), Schema::Record(record.clone()));
    Ok(())
}

fn check_type(schema: &Schema, path: &str, names: &mut Names) -> Result<(), Problem> {
    let problem = |problem: String, expected: &str, hint: &str| {
        Err(Problem { field: path.into(), problem, expected: expected.into(), hint: hint.into() })
    };
    match schema {
        Schema::Boolean | Schema::Int | Schema::Long | Schema::Float | Schema::Double | Schema::Bytes => Ok(()),
        Schema::String | Schema::Date | Schema::TimeMillis | Schema::TimeMicros | Schema::TimestampMillis => Ok(()),
        Schema::TimestampMicros | Schema::LocalTimestampMillis | Schema::LocalTimestampMicros => Ok(()),
        Schema::Uuid(UuidSchema::String) => Ok(()),
        Schema::Uuid(_) => problem(
            "a uuid in binary form".into(),
            "a uuid as text",
            r#"write {"type": "string", "logicalType": "uuid"}"#,
        ),
        Schema::Decimal(decimal) if decimal.precision <= 38 => Ok(()),
        Schema::Decimal(decimal) => problem(
            format!("a decimal of {} digits", decimal.precision),
            "a precision of at most 38",
            "38 digits are what a 128-bit decimal holds",
        ),
        Schema::Enum(e) => {
            names.insert(e.name.clone(), schema.clone());
            Ok(())
        }
        Schema::Fixed(fixed) if fixed.size > 0 => {
            names.insert(fixed.name.clone(), schema.clone());
            Ok(())
        }
        Schema::Array(array) => check_type(&array.items, &format!("{path}[]"), names),
        Schema::Map(map) => check_type(&map.types, &format!("{path}{{}}"), names),
        Schema::Record(record) if record.fields.is_empty() => {
            problem("a record without fields".into(), "at least one field", "remove the field")
        }
        Schema::Record(record) => check_record(record, path, names),
        Schema::Union(union) => match union.variants() {
            [Schema::Null, Schema::Null] => problem("a type that is only null".into(), "a type", "remove the field"),
            [Schema::Null, inner] | [inner, Schema::Null] => check_type(inner, path, names),
            _ => problem(
                "a union of several types".into(),
                "a type, or a union of null and one type",
                r#"a column has one type: use ["null", T], or one field per type"#,
            ),
        },
        Schema::Ref { name } if names.contains_key(name) => Ok(()),
        Schema::Ref { name } => problem(
            format!("a reference to {name}, which contains it"),
            "a type that does not contain itself",
            "a column's type is finite: flatten the recursion",
        ),
        Schema::TimestampNanos | Schema::LocalTimestampNanos => problem(
            "a timestamp in nanoseconds".into(),
            "timestamp-micros or timestamp-millis",
            "instants are microseconds here: keep the nanoseconds in a long, if they matter",
        ),
        Schema::Null => problem("a type that is only null".into(), "a type", "remove the field"),
        Schema::Fixed(_) => problem("a fixed of no bytes".into(), "a size above zero", "remove the field"),
        Schema::BigDecimal => problem("a big-decimal".into(), "a decimal", "give it a precision and a scale"),
        Schema::Duration(_) => problem("a duration".into(), "a long", "write the duration in microseconds as a long"),
    }
}
