//! A schema as arrow-avro is to see it.
//!
//! Guarantees: every named type stands where it is used, under its own name without a namespace; the datum's bytes, and
//! what they mean, are the same.
//!
//! arrow-avro 59 reads a reference by the reader's definition of the type, whatever the writer's is: with symbols in
//! another order it would decode other values without a word. And it compares names with their namespaces, where Avro's
//! resolution wants only the names themselves to match. Where nothing is a reference, neither arises.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

/// A schema that has grown larger than this by inlining is refused: references can double it at every step.
const LARGEST: usize = 20_000;
const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The schema with its references replaced; a uuid is its text, not sixteen bytes.
pub(super) fn inline(schema: &Json) -> Result<Json, String> {
    let mut inliner = Inliner { types: HashMap::new(), size: 0 };
    inliner.type_of(schema, "")
}

struct Inliner {
    /// By full name: the type, inlined, and how many types it is made of.
    types: HashMap<String, (Json, usize)>,
    size: usize,
}

impl Inliner {
    fn type_of(&mut self, schema: &Json, namespace: &str) -> Result<Json, String> {
        self.grow(1)?;
        match schema {
            Json::String(name) => self.named(name, namespace),
            Json::Array(variants) => {
                variants.iter().map(|v| self.type_of(v, namespace)).collect::<Result<_, _>>().map(Json::Array)
            }
            Json::Object(object) => self.object(object, namespace),
            other => Ok(other.clone()),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<Json, String> {
        if PRIMITIVES.contains(&name) {
            return Ok(name.into());
        }
        match self.types.get(&full_name(name, namespace)).or_else(|| self.types.get(name)).cloned() {
            Some((definition, size)) => {
                self.grow(size)?;
                Ok(definition)
            }
            // Unknown, or inside its own definition: the parser says so.
            None => Ok(short(name).into()),
        }
    }

    fn object(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<Json, String> {
        let text = |key: &str| object.get(key).and_then(Json::as_str);
        let kind = text("type").unwrap_or_default();
        if kind == "string" && text("logicalType") == Some("uuid") {
            return Ok("string".into());
        }
        let (before, mut inlined) = (self.size, object.clone());
        match kind {
            "record" | "error" | "enum" | "fixed" => {
                let full = full_name(text("name").unwrap_or_default(), text("namespace").unwrap_or(namespace));
                let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                for field in inlined.get_mut("fields").and_then(Json::as_array_mut).into_iter().flatten() {
                    if let Some(of_field) = field.get_mut("type") {
                        *of_field = self.type_of(of_field, inner)?;
                    }
                }
                inlined.remove("namespace");
                inlined.insert("name".into(), short(&full).into());
                for alias in inlined.get_mut("aliases").and_then(Json::as_array_mut).into_iter().flatten() {
                    *alias = short(alias.as_str().unwrap_or_default()).into();
                }
                self.types.insert(full, (Json::Object(inlined.clone()), self.size - before));
            }
            "array" | "map" => {
                let key = if kind == "array" { "items" } else { "values" };
                if let Some(of_items) = inlined.get_mut(key) {
                    *of_items = self.type_of(of_items, namespace)?;
                }
            }
            primitive if PRIMITIVES.contains(&primitive) => {}
            _ => {
                let Some(inner) = object.get("type") else {
                    return Ok(Json::Object(inlined));
                };
                return self.type_of(inner, namespace);
            }
        }
        Ok(Json::Object(inlined))
    }

    fn grow(&mut self, types: usize) -> Result<(), String> {
        self.size += types;
        match self.size <= LARGEST {
            true => Ok(()),
            false => Err(format!("the schema has more than {LARGEST} types once references stand for what they name")),
        }
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_stand_for_what_they_name() {
        let schema = json!({"type": "record", "name": "T", "namespace": "a", "fields": [
            {"name": "k", "type": {"type": "enum", "name": "K", "symbols": ["A"], "aliases": ["b.Old"]}},
            {"name": "r", "type": {"type": "record", "name": "b.R", "fields": [
                {"name": "u", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "k", "type": "a.K"}]}},
            {"name": "again", "type": ["null", {"type": "K"}], "default": null},
            {"name": "more", "type": {"type": "map", "values": "b.R"}, "doc": "K"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ]});
        let k = json!({"type": "enum", "name": "K", "symbols": ["A"], "aliases": ["Old"]});
        let r = json!({"type": "record", "name": "R", "fields": [{"name": "u", "type": "string"}, {"name": "k", "type": k}]});
        let expected = json!({"type": "record", "name": "T", "fields": [
            {"name": "k", "type": k}, {"name": "r", "type": r},
            {"name": "again", "type": ["null", k], "default": null},
            {"name": "more", "type": {"type": "map", "values": r}, "doc": "K"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ]});
        assert_eq!(inline(&schema), Ok(expected));
    }

    #[test]
    fn what_doubles_at_every_step_is_refused() {
        let mut fields = vec![json!({"name": "f0", "type": {"type": "fixed", "name": "R0", "size": 1}})];
        for i in 1..60 {
            let twice = format!("R{}", i - 1);
            fields
                .push(json!({"name": format!("f{i}"), "type": {"type": "record", "name": format!("R{i}"), "fields": [
                {"name": "a", "type": twice}, {"name": "b", "type": twice}]}}));
        }
        let schema = json!({"type": "record", "name": "T", "fields": fields});
        assert!(inline(&schema).unwrap_err().contains("20000 types"));
    }
}
