//! Whether contract files are fit to be contracts: what `tidemark schemas validate` checks of them.
//!
//! Guarantees: every problem of a file comes in one go, each at its place in the file, with what was expected and a hint.
//! Pure: texts in, [`Diagnostic`]s out.

use std::sync::Arc;

use serde_json::Value as Json;

use super::compatible::unreadable;
use super::contract::{Contract, ContractError};
use super::json_places::Places;
use crate::sql::{Diagnostic, SourceFile, Span};

/// The folder of contracts in a project.
pub const FOLDER: &str = "schemas";
const ENDING: &str = ".avsc";

/// Reads a contract's file and checks all that the file alone tells: its name, that it is a contract, its names and docs.
/// The contract comes out if it can be used at all.
pub fn validate(file: &Arc<SourceFile>) -> (Option<Contract>, Vec<Diagnostic>) {
    let mut problems = vec![];
    let name = contract_name(&file.path);
    if version(name).is_none() {
        problems.push(
            Diagnostic::new(file, Span::new(1, 1, 1), format!("`{}` is no name of a contract's file", file.path))
                .expected("<name>.v<N>.avsc, N from 1, the name of letters, digits, `_`, `-` and `.`")
                .hint("a source names it without its ending: schema = 'orders.v1'"),
        );
    }
    let places = Places::of(&file.text);
    let contract = match Contract::parse(name, &file.text) {
        Ok(contract) => contract,
        Err(error) => {
            problems.push(not_a_contract(file, &places, &error));
            return (None, problems);
        }
    };
    for (key, span) in &places.twice {
        let problem = Diagnostic::new(file, *span, format!("\"{key}\" is there twice"));
        problems.push(problem.expected("each key once").hint("remove one: which one counts depends on the reader"));
    }
    let json: Json = serde_json::from_str(&file.text).unwrap_or_default();
    check_namespace(file, &places, &json, &mut problems);
    check_docs(file, &places, &json, "", "", &mut problems);
    if let Err(cause) = contract.defaults() {
        problems.push(
            Diagnostic::new(file, places.at(""), format!("a default can't be read: {cause}"))
                .expected("defaults of their fields' types"),
        );
    }
    (Some(contract), problems)
}

/// Whether a contract reads what was written under an earlier schema. `earlier` says which, in words: `git's HEAD`.
///
/// Fails if the earlier text is no schema.
pub fn check_change(
    file: &Arc<SourceFile>,
    contract: &Contract,
    earlier_json: &str,
    earlier: &str,
) -> Result<Vec<Diagnostic>, String> {
    let found = unreadable(earlier_json, contract)?;
    if found.is_empty() {
        return Ok(vec![]);
    }
    let places = Places::of(&file.text);
    let json: Json = serde_json::from_str(&file.text).unwrap_or_default();
    let at = |found: super::Unreadable| {
        let subject = match found.field.as_str() {
            "" => "the record".to_owned(),
            field => format!("`{field}`"),
        };
        let hint = format!(
            "{}; or make it a contract of its own, in the next version's file and under its own topic",
            found.hint
        );
        Diagnostic::new(
            file,
            places.at(&pointer(&json, &found.field)),
            format!("{subject} {} (against {earlier})", found.problem),
        )
        .expected(found.expected)
        .hint(hint)
    };
    Ok(found.into_iter().map(at).collect())
}

/// Contracts that call different records by one full name.
pub fn check_names(contracts: &[(Arc<SourceFile>, Contract)]) -> Vec<Diagnostic> {
    let mut problems = vec![];
    for (i, (file, contract)) in contracts.iter().enumerate() {
        let same = |(_, other): &&(_, Contract)| {
            other.record_name() == contract.record_name() && base(other.name()) != base(contract.name())
        };
        if let Some((first, _)) = contracts.iter().take(i).find(same) {
            problems.push(
                Diagnostic::new(
                    file,
                    Places::of(&file.text).at("/name"),
                    format!("{} is also the record's name in {}", contract.record_name(), first.path),
                )
                .expected("a name for each record")
                .hint("versions of one contract share a name; other contracts need another"),
            );
        }
    }
    problems
}

/// `schemas/orders.v1.avsc` is the file of `orders.v1`.
pub fn contract_name(path: &str) -> &str {
    let name = path.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    name.strip_suffix(ENDING).unwrap_or(name)
}

/// The name and the version of `orders.v1`, if that is what it is.
pub fn version(contract: &str) -> Option<(&str, u32)> {
    let (name, number) = contract.rsplit_once(".v")?;
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let fits = letters
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && number.starts_with(|c| matches!(c, '1'..='9'));
    let number = number.parse().ok().filter(|_| number.chars().all(|c| c.is_ascii_digit()))?;
    fits.then_some((name, number))
}

fn base(contract: &str) -> &str {
    version(contract).map_or(contract, |(name, _)| name)
}

fn not_a_contract(file: &Arc<SourceFile>, places: &Places, error: &ContractError) -> Diagnostic {
    match error {
        ContractError::Json { line, column, cause, .. } => {
            let cause = cause.split(" at line ").next().unwrap_or(cause);
            let number = u32::try_from(*line).unwrap_or(1);
            // serde_json counts bytes.
            let before = file.line(number).and_then(|text| text.get(..*column)).map_or(*column, |b| b.chars().count());
            let span = Span::new(number, u32::try_from(before).unwrap_or(1), 1);
            Diagnostic::new(file, span, format!("not JSON: {cause}")).expected("an Avro record schema, as JSON")
        }
        ContractError::Avro { cause, hint, .. } => {
            Diagnostic::new(file, places.at(""), format!("not an Avro schema: {cause}"))
                .expected("an Avro record schema")
                .hint(hint)
        }
        ContractError::Field { field, problem, expected, hint, .. } => {
            let json: Json = serde_json::from_str(&file.text).unwrap_or_default();
            Diagnostic::new(file, places.at(&pointer(&json, field)), format!("`{field}` is {problem}"))
                .expected(expected)
                .hint(hint)
        }
    }
}

fn check_namespace(file: &Arc<SourceFile>, places: &Places, json: &Json, problems: &mut Vec<Diagnostic>) {
    let text = |key: &str| json.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    if text("namespace").is_none() && !text("name").is_some_and(|name| name.contains('.')) {
        problems.push(
            Diagnostic::new(file, places.at("/name"), "the record has no namespace")
                .expected(r#""namespace": "com.example""#)
                .hint("it keeps the record apart from others of its name, in the registry and in generated code"),
        );
    }
}

/// The record and each field, of records inside it too, says what it is.
fn check_docs(
    file: &Arc<SourceFile>,
    places: &Places,
    schema: &Json,
    pointer: &str,
    path: &str,
    problems: &mut Vec<Diagnostic>,
) {
    match schema {
        Json::Array(variants) => {
            for (i, variant) in variants.iter().enumerate() {
                check_docs(file, places, variant, &format!("{pointer}/{i}"), path, problems);
            }
        }
        Json::Object(object) => {
            let undocumented = |of: &Json| of.get("doc").and_then(Json::as_str).is_none_or(|doc| doc.trim().is_empty());
            let fields = object.get("fields").and_then(Json::as_array);
            if fields.is_some() && path.is_empty() && undocumented(schema) {
                problems.push(
                    Diagnostic::new(file, places.at(&format!("{pointer}/name")), "the record has no doc")
                        .expected(r#""doc": what one event is"#),
                );
            }
            for (i, field) in fields.into_iter().flatten().enumerate() {
                let name = field.get("name").and_then(Json::as_str).unwrap_or_default();
                let (pointer, path) = (format!("{pointer}/fields/{i}"), join(path, name));
                if undocumented(field) {
                    problems.push(
                        Diagnostic::new(file, places.at(&format!("{pointer}/name")), format!("`{path}` has no doc"))
                            .expected(r#""doc": a sentence that a stranger understands, with the unit"#),
                    );
                }
                let of_field = field.get("type").unwrap_or(&Json::Null);
                check_docs(file, places, of_field, &format!("{pointer}/type"), &path, problems);
            }
            for key in ["items", "values", "type"] {
                if let Some(inner) = object.get(key).filter(|inner| !inner.is_string()) {
                    check_docs(file, places, inner, &format!("{pointer}/{key}"), path, problems);
                }
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Where a field's name stands: `home.city` is `/fields/2/type/1/fields/0/name`. A path that leads into a type which is
/// defined elsewhere ends at the field that names it.
fn pointer(schema: &Json, path: &str) -> String {
    let mut at = String::new();
    let mut record = schema;
    for name in path.split('.').map(|part| part.trim_end_matches(['[', ']', '{', '}'])) {
        let fields = record.get("fields").and_then(Json::as_array);
        let named = |f: &&Json| f.get("name").and_then(Json::as_str) == Some(name);
        let Some((i, field)) = fields.into_iter().flatten().enumerate().find(|(_, f)| named(f)) else {
            break;
        };
        // What was the place of a type goes on to its field.
        let from = inside(record, schema, &at);
        at = format!("{from}/fields/{i}");
        record = unwrapped(field.get("type").unwrap_or(&Json::Null));
    }
    format!("{at}/name")
}

/// The pointer of the record that a field at `at` holds; the schema itself for the first.
fn inside(record: &Json, schema: &Json, at: &str) -> String {
    if at.is_empty() {
        return String::new();
    }
    let mut pointer = format!("{at}/type");
    let mut of_type = schema.pointer(&pointer).unwrap_or(&Json::Null);
    while !std::ptr::eq(of_type, record) {
        let Some((step, inner)) = step(of_type) else {
            break;
        };
        pointer = format!("{pointer}/{step}");
        of_type = inner;
    }
    pointer
}

/// A type without its null, list or map.
fn unwrapped(of_type: &Json) -> &Json {
    let mut of_type = of_type;
    while let Some((_, inner)) = step(of_type) {
        of_type = inner;
    }
    of_type
}

/// One step into a union, array or map.
fn step(of_type: &Json) -> Option<(String, &Json)> {
    match of_type {
        Json::Array(variants) => {
            variants.iter().enumerate().find(|(_, v)| *v != "null").map(|(i, v)| (i.to_string(), v))
        }
        Json::Object(object) => ["items", "values", "type"]
            .into_iter()
            .find_map(|key| object.get(key).filter(|inner| !inner.is_string()).map(|inner| (key.to_owned(), inner)))
            .filter(|_| !object.contains_key("fields")),
        _ => None,
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
