//! The facts of sources, tables and shared views.

use arrow::datatypes::Schema;

use super::facts::{About, Column, RelationFacts};
use crate::catalog::{Source, Table};
use crate::plan::pipeline::scans;
use crate::plan::words::{duration, sql_type};
use crate::plan::{Project, SharedView};
use crate::sql::{Connector, FileFormat, Start};

/// Where a source's events come from.
pub fn reads(project: &Project, source: &Source) -> String {
    match source.connector {
        Connector::Kafka => {
            let contract = source
                .contract
                .as_ref()
                .map(|_| source.options.schema.as_ref().map(|s| s.value.as_str()).unwrap_or_default());
            let contract = contract.map(|c| format!(", Avro contract {c}")).unwrap_or_default();
            format!("topic {}{contract}", topic(source))
        }
        Connector::Files => {
            let format = source.format.map(format_name).unwrap_or_default();
            format!("{format} files {}", relative(project, source.location.as_deref().unwrap_or_default()))
        }
    }
}

pub fn facts(project: &Project, source: &Source) -> RelationFacts {
    let options = &source.options;
    let mut stated =
        vec![("reads".to_owned(), reads(project, source)), ("timestamp".to_owned(), source.timestamp.clone())];
    let mut add = |name: &str, value: Option<String>| stated.extend(value.map(|v| (name.to_owned(), v)));
    add(
        "event_id",
        source
            .event_id
            .as_ref()
            .map(|id| format!("{id}: the same id at the same instant, for the same key, is one event and counts once")),
    );
    add("history", options.history.as_ref().map(|h| h.value.clone()));
    add("max_future", Some(format!("{}: an event further past the clock is refused", duration(options.max_future))));
    let retention = options.retention.as_ref().map(|kept| duration(kept.value));
    add(
        "retention",
        retention.map(|kept| format!("{kept}: `tidemark compact` removes files whose events are all older")),
    );
    if source.connector == Connector::Kafka {
        add("partitions", Some(format!("{} in the embedded log", source.partitions())));
        add("start", options.start.as_ref().map(|s| start(s.value)));
        add("dead_letter_topic", options.dead_letter_topic.as_ref().map(|t| t.value.clone()));
        for (key, value) in &options.kafka {
            let secret = ["password", "secret", "key"].iter().any(|word| key.contains(word));
            add(&format!("kafka.{key}"), Some(if secret { "(hidden)".into() } else { value.clone() }));
        }
    }
    RelationFacts {
        about: About {
            name: source.name.clone(),
            description: source.description.clone(),
            owner: options.owner.clone(),
        },
        options: stated,
        columns: columns(&source.schema),
        plan: None,
        used_by: project.views_of(&source.name).iter().map(|v| v.name.clone()).collect(),
    }
}

pub fn table(project: &Project, table: &Table) -> RelationFacts {
    let mut location = relative(project, &table.location).to_owned();
    if !table.present() {
        location.push_str(" (no file there yet)");
    }
    let reads = |plan: &datafusion::logical_expr::LogicalPlan| scans(plan).contains(&table.name);
    let views = project.views.values().filter(|v| reads(&v.plans.row_stage)).map(|v| v.name.clone());
    let services = project.services.values().filter(|s| reads(&s.plan)).map(|s| s.name.clone());
    let sets = project.training_sets.values().filter(|s| reads(&s.spine)).map(|s| s.name.clone());
    let mut options = vec![("stored as".into(), format_name(table.format).into()), ("location".into(), location)];
    options.extend(table.options.clone());
    if let Some(history) = &table.history {
        let age = history.max_age.map_or(String::new(), |age| format!(", and for {} at most", duration(age)));
        let holds = format!("from its {} on, until its key's next row{age}", history.timestamp);
        options.push(("a row holds".into(), holds));
    }
    RelationFacts {
        about: About { name: table.name.clone(), description: table.description.clone(), owner: None },
        options,
        columns: columns(&table.schema),
        plan: None,
        used_by: views.chain(services).chain(sets).collect(),
    }
}

pub fn shared(view: &SharedView) -> RelationFacts {
    RelationFacts {
        about: About { name: view.name.clone(), description: view.description.clone(), owner: None },
        options: vec![("inlined".into(), "wherever it is named; it has no state of its own".into())],
        columns: columns(view.plan.schema().as_arrow()),
        plan: Some(view.plan.display_indent().to_string()),
        used_by: vec![],
    }
}

fn topic(source: &Source) -> &str {
    source.options.topic.as_ref().map_or(&source.name, |t| &t.value)
}

fn format_name(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "Parquet",
        FileFormat::Csv => "CSV",
        FileFormat::Ndjson => "NDJSON",
        FileFormat::Avro => "Avro",
    }
}

fn start(start: Start) -> String {
    match start {
        Start::Earliest => "earliest".into(),
        Start::Latest => "latest".into(),
        Start::Offset(offset) => format!("offset {offset}"),
        Start::Time(micros) => {
            chrono::DateTime::from_timestamp_micros(micros).map_or_else(|| micros.to_string(), |t| t.to_rfc3339())
        }
    }
}

/// A location as the definition has it.
fn relative<'a>(project: &Project, location: &'a str) -> &'a str {
    let root = project.root.to_string_lossy();
    location.strip_prefix(root.as_ref()).map_or(location, |rest| rest.trim_start_matches('/'))
}

fn columns(schema: &Schema) -> Vec<Column> {
    let column = |f: &arrow::datatypes::FieldRef| Column {
        name: f.name().clone(),
        data_type: format!("{}{}", sql_type(f.data_type()), if f.is_nullable() { "" } else { " NOT NULL" }),
        expression: None,
        description: None,
    };
    schema.fields().iter().map(column).collect()
}
