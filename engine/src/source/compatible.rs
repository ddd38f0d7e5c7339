//! Whether what one schema wrote can be read under a contract, and means the same.
//!
//! Guarantees: Avro's rules of resolution (of the specification, by [`SchemaCompatibility`]), field by field, and one
//! more: Avro looks at the stored types only, so that a timestamp in milliseconds would be read as microseconds, and a
//! number as an instant, without a word. Such pairs are refused.

use std::collections::HashMap;
use std::fmt;
use std::iter::once;

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, Name, RecordSchema, UuidSchema};
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use super::contract::Contract;
use super::decode::build;
use super::framing::WriterId;

/// Why a contract can't read what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The contract's field, as a path: `home.city`, `tags[]`; empty for the record itself.
    pub field: String,
    /// What is wrong with it, as a sentence goes on after the field.
    pub problem: String,
    pub expected: String,
    pub hint: String,
    /// Whether only some records can't be read: those with a NULL, or with a symbol that the contract lacks.
    pub partly: bool,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "the record ")?,
            field => write!(f, "field \"{field}\" ")?,
        }
        write!(f, "{}; expected {}; hint: {}", self.problem, self.expected, self.hint)
    }
}

/// Everything that keeps a contract from reading all records that were written with a schema; nothing if it reads them all.
///
/// Fails if the writer's schema is none.
pub fn unreadable(writer_json: &str, contract: &Contract) -> Result<Vec<Unreadable>, String> {
    if writer_json == contract.json() {
        return Ok(vec![]);
    }
    let writer = Schema::parse_str(writer_json).map_err(|e| e.to_string())?;
    let (Schema::Record(from), Schema::Record(to)) = (&writer, contract.avro()) else {
        return Err("the top level is not a record".into());
    };
    let mut names = HashMap::new();
    collect_names(&writer, &mut names);
    let mut comparison = Comparison { names, contract, found: vec![] };
    comparison.records(from, to, "");
    if comparison.found.iter().all(|found| found.partly)
        && let Err(cause) = build(writer_json, contract, WriterId::Registry(0))
    {
        let problem = format!("can't be decoded: {cause}");
        comparison.add("", problem, "what the decoder reads", "keep the types as they were", false);
    }
    Ok(comparison.found)
}

/// Ok if a contract reads records of a writer's schema, though perhaps not each of them; else why not.
pub(super) fn check_compatible(writer_json: &str, contract: &Contract) -> Result<(), String> {
    match unreadable(writer_json, contract)?.into_iter().find(|found| !found.partly) {
        Some(found) => Err(found.to_string()),
        None => Ok(()),
    }
}

struct Comparison<'a> {
    /// The writer's named types.
    names: HashMap<Name, Schema>,
    contract: &'a Contract,
    found: Vec<Unreadable>,
}

const NEW_MEANING: &str = "give the field with the new meaning a new name, and a default";

impl Comparison<'_> {
    fn records(&mut self, writer: &RecordSchema, reader: &RecordSchema, path: &str) {
        self.same_name((&writer.name, &reader.name), reader.aliases.iter().flatten().map(|a| a.name()), path);
        for field in &reader.fields {
            let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            let known = |name: &String| writer.fields.iter().find(|f| f.name == *name);
            match once(&field.name).chain(&field.aliases).find_map(known) {
                Some(written) => self.types(&written.schema, &field.schema, &path),
                None if field.default.is_none() => self.add(
                    &path,
                    "was not written, and has no default".into(),
                    "a default, for the records without it",
                    r#"add "default", or write ["null", T] with "default": null"#,
                    false,
                ),
                None => {}
            }
        }
    }

    fn types(&mut self, writer: &Schema, reader: &Schema, path: &str) {
        if has_null(writer) && !has_null(reader) {
            let problem = "may be NULL in what was written, and may not any more".into();
            self.add(path, problem, "a type with null", r#"write ["null", T]"#, true);
        }
        let contract = self.contract;
        let written = self.deref(non_null(writer));
        match (&written, contract.deref(non_null(reader))) {
            (Schema::Record(w), Schema::Record(r)) => self.records(w, r, path),
            (Schema::Array(w), Schema::Array(r)) => self.types(&w.items, &r.items, &format!("{path}[]")),
            (Schema::Map(w), Schema::Map(r)) => self.types(&w.types, &r.types, &format!("{path}{{}}")),
            (Schema::Enum(w), Schema::Enum(r)) => self.enums(w, r, path),
            (Schema::Union(w), r) => {
                let variants: Vec<Schema> =
                    w.variants().iter().filter(|v| !matches!(v, Schema::Null)).map(|v| self.deref(v)).collect();
                let fits = |v: &Schema| resolves(v, r) && meaning(v) == meaning(r);
                if !variants.iter().all(fits) {
                    self.differ(&written, r, path, variants.iter().any(fits));
                }
            }
            (w, r) if meaning(w) != meaning(r) => {
                let problem = format!("is written as {} and would be read as {}", words(w), words(r));
                self.add(path, problem, words(w), NEW_MEANING, false);
            }
            (w, r) if !resolves(w, r) => self.differ(w, r, path, false),
            _ => {}
        }
    }

    fn enums(&mut self, writer: &EnumSchema, reader: &EnumSchema, path: &str) {
        self.same_name((&writer.name, &reader.name), reader.aliases.iter().flatten().map(|a| a.name()), path);
        let lacking: Vec<&str> =
            writer.symbols.iter().filter(|s| !reader.symbols.contains(s)).map(String::as_str).collect();
        if reader.default.is_none() && !lacking.is_empty() {
            let problem = format!("was written with symbols that it has no longer: {}", lacking.join(", "));
            let partly = lacking.len() < writer.symbols.len();
            self.add(
                path,
                problem,
                "every symbol that was ever written",
                "keep them, or give the enum a default",
                partly,
            );
        }
    }

    /// Types match by their names without namespaces, or by an alias of the reader's.
    fn same_name<'n>(
        &mut self,
        (writer, reader): (&Name, &Name),
        mut aliases: impl Iterator<Item = &'n str>,
        path: &str,
    ) {
        if writer.name() != reader.name() && !aliases.any(|alias| alias == writer.name()) {
            let problem =
                format!("is written as a type called {} and would be read as {}", writer.name(), reader.name());
            let hint = format!(r#"keep the name, or add "aliases": ["{}"]"#, writer.name());
            self.add(path, problem, format!("the name {}", writer.name()), &hint, false);
        }
    }

    fn differ(&mut self, writer: &Schema, reader: &Schema, path: &str, partly: bool) {
        let problem = format!("is written as {} and can't be read as {}", words(writer), words(reader));
        let hint = match (writer, reader) {
            (Schema::Long, Schema::Int) | (Schema::Double, Schema::Float) => "a type only ever gets wider",
            _ => NEW_MEANING,
        };
        self.add(path, problem, format!("{}, or a type that Avro promotes it to", words(writer)), hint, partly);
    }

    fn add(&mut self, field: &str, problem: String, expected: impl Into<String>, hint: &str, partly: bool) {
        self.found.push(Unreadable {
            field: field.into(),
            problem,
            expected: expected.into(),
            hint: hint.into(),
            partly,
        });
    }

    fn deref(&self, schema: &Schema) -> Schema {
        match schema {
            Schema::Ref { name } => self.names.get(name).unwrap_or(schema).clone(),
            other => other.clone(),
        }
    }
}

fn resolves(writer: &Schema, reader: &Schema) -> bool {
    matches!(SchemaCompatibility::can_read(writer, reader), Ok(Compatibility::Full))
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

/// A type as its schema spells it.
fn words(schema: &Schema) -> String {
    if let Some(meaning) = meaning(schema) {
        return meaning;
    }
    let name = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Uuid(_) => "uuid",
        Schema::Array(_) => "an array",
        Schema::Map(_) => "a map",
        Schema::Record(record) => return format!("record {}", record.name.name()),
        Schema::Enum(e) => return format!("enum {}", e.name.name()),
        Schema::Fixed(fixed) => return format!("fixed {} of {} bytes", fixed.name.name(), fixed.size),
        Schema::Ref { name } => return name.name().into(),
        Schema::Union(union) => {
            let variants = union.variants().iter().map(words).collect::<Vec<_>>();
            return format!("a union of {}", variants.join(", "));
        }
        _ => "another type",
    };
    name.into()
}

fn has_null(schema: &Schema) -> bool {
    match schema {
        Schema::Union(union) => union.variants().iter().any(|v| matches!(v, Schema::Null)),
        other => matches!(other, Schema::Null),
    }
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

#[cfg(test)]
#[path = "compatible_tests.rs"]
mod tests;
