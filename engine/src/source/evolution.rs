//! What a contract makes of an event that was written before it had all of its fields.
//!
//! Guarantee: what Avro's resolution makes of it, which is what a replay of the log decodes. The values come out of the
//! same decoder.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use serde_json::{Value as Json, json};

use super::contract::Contract;
use super::decode::{Decoder, Message};
use super::encode::Encoder;
use super::framing::WriterId;

impl Contract {
    /// By column: its value (an array of one) in an event that lacks it, if the contract has a default for it.
    pub fn defaults(&self) -> Result<Vec<Option<ArrayRef>>, String> {
        let fields = self.fields();
        if fields.iter().all(|field| field.default.is_none()) {
            return Ok(vec![None; fields.len()]);
        }
        // With NULL where there is no default, an empty record is whole, and decodes to all defaults.
        let mut schema: Json = serde_json::from_str(self.json()).map_err(|e| e.to_string())?;
        let json = schema.get_mut("fields").and_then(Json::as_array_mut).ok_or("the contract has no fields")?;
        for field in json.iter_mut().filter_map(Json::as_object_mut).filter(|field| !field.contains_key("default")) {
            let of_value = match field.remove("type") {
                Some(Json::Array(variants)) => variants.into_iter().find(|v| v != "null").unwrap_or_default(),
                other => other.unwrap_or_default(),
            };
            field.insert("type".into(), json!(["null", of_value]));
            field.insert("default".into(), Json::Null);
        }
        let relaxed = Arc::new(Contract::parse(self.name(), &schema.to_string()).map_err(|e| e.to_string())?);
        let writers = HashMap::from([(WriterId::Rabin(relaxed.fingerprint()), relaxed.json().to_owned())]);
        let payload = Encoder::new(relaxed.clone()).encode(&json!({})).map_err(|e| e.to_string())?;
        let message = Message { offset: 0, ingested_at: 0, payload };
        let decoded = Decoder::new(relaxed, Arc::new(writers), None)?.decode(0, &[message])?;
        if let Some(reject) = decoded.rejects.first() {
            return Err(format!("contract {}: its defaults can't be read: {}", self.name(), reject.reason));
        }
        let columns = decoded.events.columns().iter().zip(fields);
        Ok(columns.map(|(column, field)| field.default.as_ref().map(|_| column.clone())).collect())
    }

    /// Names that a column had before.
    pub fn aliases(&self, column: usize) -> &[String] {
        self.fields().get(column).map_or(&[], |field| field.aliases.as_slice())
    }

    /// Ok if a column that was stored as `stored` is read as its own type by casting it: the types are equal, or Avro
    /// promotes the one to the other, and what a nested record lacks is NULL by default. Else what is wrong.
    pub fn check_promotion(&self, column: usize, stored: &DataType) -> Result<(), String> {
        let (Some(field), Some(wanted)) = (self.fields().get(column), self.columns().fields().get(column)) else {
            return Ok(());
        };
        self.promoted(&field.schema, stored, wanted.data_type(), &field.name)
    }

    fn promoted(&self, schema: &Schema, stored: &DataType, wanted: &DataType, path: &str) -> Result<(), String> {
        use DataType::*;
        match (stored, wanted, self.deref(self.value_of(schema))) {
            (Struct(stored), Struct(wanted), Schema::Record(record)) => {
                wanted.iter().zip(&record.fields).try_for_each(|(wanted, field)| {
                    let path = format!("{path}.{}", field.name);
                    match stored.iter().find(|f| f.name() == wanted.name()) {
                        Some(stored) => self.promoted(&field.schema, stored.data_type(), wanted.data_type(), &path),
                        None if field.default == Some(Json::Null) => Ok(()),
                        None => Err(format!("lacks `{path}`, whose default is not null")),
                    }
                })
            }
            (List(stored), List(wanted), Schema::Array(array)) => {
                self.promoted(&array.items, stored.data_type(), wanted.data_type(), &format!("{path}[]"))
            }
            (Map(stored, _), Map(wanted, _), Schema::Map(map)) => match (stored.data_type(), wanted.data_type()) {
                (Struct(stored), Struct(wanted)) => {
                    stored.iter().zip(wanted.iter()).try_for_each(|(stored, wanted)| {
                        self.promoted(&map.types, stored.data_type(), wanted.data_type(), &format!("{path}{{}}"))
                    })
                }
                _ => Ok(()),
            },
            (stored, wanted, _) if stored == wanted => Ok(()),
            (Int32, Int64 | Float32 | Float64, _) | (Int64, Float32 | Float64, _) | (Float32, Float64, _) => Ok(()),
            (Utf8, Binary, _) | (Binary, Utf8, _) => Ok(()),
            _ => Err(format!("has `{path}` as {stored}, which Avro does not read as {wanted}")),
        }
    }

    fn fields(&self) -> &[RecordField] {
        match self.avro() {
            Schema::Record(record) => &record.fields,
            _ => &[],
        }
    }

    /// A type without its null.
    fn value_of<'a>(&self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Union(union) => union.variants().iter().find(|v| !matches!(v, Schema::Null)).unwrap_or(schema),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Fields};
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn contract(fields: &str) -> Contract {
        Contract::parse("e.v2", &format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#)).unwrap()
    }

    #[test]
    fn defaults_are_what_the_decoder_reads() {
        let contract = contract(
            r#"{"name":"id","type":"long"},
               {"name":"kind","type":{"type":"enum","name":"K","symbols":["A","B"]}},
               {"name":"was","type":["K","null"],"default":"B"},
               {"name":"ch","type":"string","default":"web"},
               {"name":"note","type":["null","string"],"default":null},
               {"name":"n","type":["double","null"]},
               {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
               {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":1500}"#,
        );
        let defaults = contract.defaults().unwrap();
        let shown: Vec<Option<String>> =
            defaults.iter().map(|d| d.as_ref().map(|a| array_value_to_string(a, 0).unwrap())).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown,
            [None, None, some("B"), some("web"), some(""), None, some("[]"), some("1970-01-01T00:00:01.500Z")]
        );
        for (default, field) in defaults.iter().zip(contract.columns().fields()) {
            assert!(default.as_ref().is_none_or(|d| d.data_type() == field.data_type()), "{field}");
        }
    }

    #[test]
    fn avros_promotions_are_casts_and_nothing_else_is() {
        let contract = contract(
            r#"{"name":"n","type":"long"},
               {"name":"r","type":{"type":"record","name":"R","fields":[
                 {"name":"a","type":"double"},{"name":"b","type":["null","int"],"default":null},
                 {"name":"c","type":"int","default":5}]}}"#,
        );
        assert_eq!(contract.check_promotion(0, &DataType::Int32), Ok(()));
        assert!(contract.check_promotion(0, &DataType::Utf8).unwrap_err().contains("`n` as Utf8"));
        let record = |names: &[&str]| {
            DataType::Struct(names.iter().map(|n| Field::new(*n, DataType::Int32, false)).collect::<Fields>())
        };
        assert_eq!(contract.check_promotion(1, &record(&["a", "c"])), Ok(()));
        assert!(contract.check_promotion(1, &record(&["a"])).unwrap_err().contains("lacks `r.c`"));
    }
}
