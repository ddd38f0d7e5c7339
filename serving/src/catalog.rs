//! `/v1/catalog`: what the project defines.
//!
//! `GET /v1/catalog` gives every definition's name and description by kind; `/v1/catalog/{kind}` the kind's definitions in
//! full, by name; `/v1/catalog/{kind}/{name}` one of them. Kinds: `sources`, `tables`, `views`, `services`, `training-sets`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value as Json, json};
use tidemark_engine::catalog::{Source, Table};
use tidemark_engine::kernel::{Frame, Interval};
use tidemark_engine::plan::{FeatureService, FeatureView, Project, TrainingSet};
use tidemark_engine::sql::{Connector, FileFormat};

use crate::app::{App, Names};
use crate::body;
use crate::problem::Problem;
use crate::types::sql_type;

pub const ROUTE: &str = "/v1/catalog";
pub const KIND_ROUTE: &str = "/v1/catalog/{kind}";
pub const NAME_ROUTE: &str = "/v1/catalog/{kind}/{name}";

const KINDS: [&str; 5] = ["sources", "tables", "views", "services", "training-sets"];

#[derive(Serialize)]
struct Column<'a> {
    name: &'a str,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

pub(crate) async fn all(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let summary = |kind: &str| -> Json {
        let entries = entries(&app.platform.project, kind).unwrap_or_default();
        entries
            .into_values()
            .map(|entry| json!({"name": entry["name"], "description": entry["description"], "owner": entry["owner"]}))
            .collect()
    };
    let kinds: serde_json::Map<String, Json> =
        KINDS.iter().map(|kind| (kind.replace('-', "_"), summary(kind))).collect();
    body::json(StatusCode::OK, &kinds)
}

pub(crate) async fn kind(State(app): State<Arc<App>>, Names(kind): Names<String>) -> Result<Response, Problem> {
    let entries = entries(&app.platform.project, &kind)?;
    body::json(StatusCode::OK, &entries.into_values().collect::<Vec<_>>())
}

pub(crate) async fn name(
    State(app): State<Arc<App>>,
    Names((kind, name)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let entries = entries(&app.platform.project, &kind)?;
    let what = kind.trim_end_matches('s').replace('-', " ");
    let entry = entries.get(&name).ok_or_else(|| Problem::unknown(&what, &name, entries.keys()))?;
    body::json(StatusCode::OK, entry)
}

/// The definitions of a kind, by name.
fn entries(project: &Project, kind: &str) -> Result<BTreeMap<String, Json>, Problem> {
    fn each<T>(definitions: &BTreeMap<String, Arc<T>>, entry: impl Fn(&T) -> Json) -> BTreeMap<String, Json> {
        definitions.iter().map(|(name, definition)| (name.clone(), entry(definition))).collect()
    }
    Ok(match kind {
        "sources" => each(&project.sources, |s| source(project, s)),
        "tables" => each(&project.tables, |t| table(project, t)),
        "views" => each(&project.views, view),
        "services" => each(&project.services, service),
        "training-sets" => each(&project.training_sets, training_set),
        other => return Err(Problem::unknown("kind of definition", other, &KINDS.map(str::to_owned))),
    })
}

fn source(project: &Project, source: &Source) -> Json {
    json!({
        "name": source.name,
        "description": source.description,
        "owner": source.options.owner,
        "connector": match source.connector { Connector::Kafka => "kafka", Connector::Files => "files" },
        "contract": source.contract.as_ref().map(|c| c.name()),
        "location": source.location.as_ref().map(|l| relative(project, l)),
        "format": source.format.map(format_name),
        "timestamp": source.timestamp,
        "event_id": source.event_id,
        "pushable": source.contract.is_some(),
        "columns": columns(source.schema.fields(), None),
        "views": project.views_of(&source.name).iter().map(|v| v.name.clone()).collect::<Vec<_>>(),
    })
}

fn table(project: &Project, table: &Table) -> Json {
    json!({
        "name": table.name,
        "description": table.description,
        "format": format_name(table.format),
        "location": relative(project, &table.location),
        "present": table.present(),
        "timestamp": table.history.as_ref().map(|h| h.timestamp.as_str()),
        "max_age": table.history.as_ref().and_then(|h| h.max_age).map(micros),
        "columns": columns(table.schema.fields(), None),
    })
}

fn view(view: &FeatureView) -> Json {
    json!({
        "name": view.name,
        "description": view.options.description,
        "owner": view.options.owner,
        "source": view.source.name,
        "keys": columns(&view.keys, Some(&view.docs)),
        "features": columns(view.features(), Some(&view.docs)),
        "frames": view.kernel.spec().frames.iter().map(frame).collect::<Vec<_>>(),
        "tile": view.options.tile.map(micros),
        "lateness": micros(view.options.lateness),
        "sql": view.sql,
        "fingerprint": view.fingerprint,
    })
}

fn service(service: &FeatureService) -> Json {
    json!({
        "name": service.name,
        "description": service.description,
        "owner": service.owner,
        "request": columns(service.signature.fields(), None),
        "features": columns(service.schema.fields(), Some(&service.docs)),
        "views": service.views().iter().map(|(v, _)| v.name.as_str()).collect::<Vec<_>>(),
        "tables": service.pipeline.table_joins().flat_map(|j| &j.tables).collect::<Vec<_>>(),
        "sql": service.sql,
    })
}

fn training_set(set: &TrainingSet) -> Json {
    json!({
        "name": set.name,
        "description": set.description,
        "owner": set.owner,
        "service": set.service.name,
        "timestamp": set.timestamp,
        "spine": columns(set.spine.schema().fields(), None),
        "features": columns(set.service.schema.fields(), Some(&set.service.docs)),
        "sql": set.sql,
    })
}

fn columns<'a>(
    fields: impl IntoIterator<Item = &'a FieldRef>,
    docs: Option<&'a BTreeMap<String, String>>,
) -> Vec<Json> {
    let column = |field: &Field| {
        let description = docs.and_then(|docs| docs.get(field.name())).map(String::as_str);
        json!(Column { name: field.name(), r#type: sql_type(field.data_type()), description })
    };
    fields.into_iter().map(|f| column(f)).collect()
}

fn format_name(format: FileFormat) -> &'static str {
    FileFormat::NAMES.iter().find(|(_, f)| *f == format).map_or("", |(name, _)| name)
}

/// Where files are, as the definition says it: without the machine's own folders.
fn relative(project: &Project, location: &str) -> String {
    let root = project.root.to_string_lossy();
    match location.strip_prefix(root.as_ref()).map(|rest| rest.trim_start_matches('/')) {
        Some(inside) if !root.is_empty() => inside.to_owned(),
        _ => location.to_owned(),
    }
}

/// A frame in SQL's words.
fn frame(frame: &Frame) -> String {
    let preceding = |text: Option<String>| text.map_or("UNBOUNDED PRECEDING".to_owned(), |t| format!("{t} PRECEDING"));
    match frame {
        Frame::Range { start, end } => {
            let until =
                if *end == Interval::default() { "CURRENT ROW".to_owned() } else { preceding(Some(interval(end))) };
            format!("RANGE BETWEEN {} AND {until}", preceding(start.as_ref().map(interval)))
        }
        Frame::Rows { start, end } => {
            let until = if *end == 0 { "CURRENT ROW".to_owned() } else { preceding(Some(end.to_string())) };
            format!("ROWS BETWEEN {} AND {until}", preceding(start.map(|n| n.to_string())))
        }
    }
}

fn interval(interval: &Interval) -> String {
    let mut parts = vec![];
    if interval.months != 0 {
        parts.push(count(i64::from(interval.months), "month"));
    }
    if interval.days != 0 {
        parts.push(count(i64::from(interval.days), "day"));
    }
    if interval.micros != 0 || parts.is_empty() {
        parts.push(micros(interval.micros));
    }
    format!("INTERVAL '{}'", parts.join(" "))
}

/// A length of time in the largest unit that divides it.
fn micros(micros: i64) -> String {
    const UNITS: [(i64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
    let unit = UNITS.iter().find(|(length, _)| micros != 0 && micros % length == 0);
    unit.map_or_else(|| "0 seconds".to_owned(), |(length, name)| count(micros / length, name))
}

fn count(n: i64, unit: &str) -> String {
    if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_as_sql() {
        let hour = Interval { micros: 3_600_000_000, ..Interval::default() };
        let long = Interval { months: 1, days: 2, micros: 90_000_000 };
        let range = |start, end| frame(&Frame::Range { start, end });
        assert_eq!(range(Some(hour), Interval::default()), "RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW");
        assert_eq!(
            range(None, long),
            "RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '1 month 2 days 90 seconds' PRECEDING"
        );
        assert_eq!(frame(&Frame::Rows { start: Some(9), end: 1 }), "ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING");
        assert_eq!(frame(&Frame::Rows { start: None, end: 0 }), "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW");
    }
}
