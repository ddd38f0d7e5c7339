//! Whether what one schema wrote means the same under a contract.
//!
//! Avro's own resolution (which arrow-avro does) looks at the stored types only: a timestamp in milliseconds
//! would be read as microseconds, and a decimal with another scale, without a word. This refuses such pairs.

use apache_avro::Schema;
use apache_avro::schema::{Name, UuidSchema};
use std::collections::HashMap;

use super::contract::Contract;

/// Ok if no value changes its meaning between a writer's schema and the contract; else which field does.
pub(super) fn check_compatible(writer_json: &str, contract: &Contract) -> Result<(), String> {
    if writer_json == contract.json() {
        return Ok(());
    }
    let writer = Schema::parse_str(writer_json).map_err(|e| e.to_string())?;
    let mut writer_names = HashMap::new();
    collect_names(&writer, &mut writer_names);
    check(&writer, contract.avro(), "", &writer_names, contract)
}

fn check(
    writer: &Schema,
    reader: &Schema,
    path: &str,
    names: &HashMap<Name, Schema>,
    contract: &Contract,
) -> Result<(), String> {
    let writer = match non_null(writer) {
        Schema::Ref { name } => names.get(name).unwrap_or(writer),
        other => other,
    };
    let reader = contract.deref(non_null(reader));
    match (writer, reader) {
        (Schema::Record(w), Schema::Record(r)) => w
            .fields
            .iter()
            .filter_map(|wf| {
                let same = |rf: &&apache_avro::schema::RecordField| rf.name == wf.name || rf.aliases.contains(&wf.name);
                r.fields.iter().find(same).map(|rf| (wf, rf))
            })
            .try_for_each(|(wf, rf)| check(&wf.schema, &rf.schema, &join(path, &wf.name), names, contract)),
        (Schema::Array(w), Schema::Array(r)) => check(&w.items, &r.items, &format!("{path}[]"), names, contract),
        (Schema::Map(w), Schema::Map(r)) => check(&w.types, &r.types, &format!("{path}{{}}"), names, contract),
        (w, r) if meaning(w) != meaning(r) => Err(format!(
            "field \"{path}\" is written as {} and would be read as {}; \
             hint: give the field with the new meaning a new name",
            meaning(w).unwrap_or_else(|| "a plain value".into()),
            meaning(r).unwrap_or_else(|| "a plain value".into()),
        )),
        _ => Ok(()),
    }
}

/// What a logical type makes of the stored value; `None` if the stored value says it all.
fn meaning(schema: &Schema) -> Option<String> {
    let name = match schema {
        Schema::Decimal(d) => return Some(format!("decimal({}, {})", d.precision, d.scale)),
        Schema::Date => "date",
        Schema::TimeMillis => "time-millis",
        Schema::TimeMicros => "time-micros",
        Schema::TimestampMillis | Schema::LocalTimestampMillis => "timestamp-millis",
        Schema::TimestampMicros | Schema::LocalTimestampMicros => "timestamp-micros",
        Schema::TimestampNanos | Schema::LocalTimestampNanos => "timestamp-nanos",
        Schema::Duration(_) => "duration",
        Schema::BigDecimal => "big-decimal",
        Schema::Uuid(UuidSchema::String) => return None,
        Schema::Uuid(_) => "binary uuid",
        _ => return None,
    };
    Some(name.into())
}

fn non_null(schema: &Schema) -> &Schema {
    match schema {
        Schema::Union(union) => match union.variants() {
            [Schema::Null, inner] | [inner, Schema::Null] => inner,
            _ => schema,
        },
        other => other,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

fn collect_names(schema: &Schema, names: &mut HashMap<Name, Schema>) {
    match schema {
        Schema::Record(record) => {
            names.insert(record.name.clone(), schema.clone());
            record.fields.iter().for_each(|f| collect_names(&f.schema, names));
        }
        Schema::Enum(e) => {
            names.insert(e.name.clone(), schema.clone());
        }
        Schema::Fixed(f) => {
            names.insert(f.name.clone(), schema.clone());
        }
        Schema::Array(array) => collect_names(&array.items, names),
        Schema::Map(map) => collect_names(&map.types, names),
        Schema::Union(union) => union.variants().iter().for_each(|v| collect_names(v, names)),
        _ => {}
    }
}
