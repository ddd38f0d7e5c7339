//! Sources: streams of events with a known shape.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::offline::{History, Judge};
use crate::source::contract::Contract;
use crate::source::files;
use crate::sql::{Connector, FileFormat, SourceDef, SourceOptions, Spanned};
use crate::sql::{Diagnostic, SourceFile, did_you_mean};

/// What is known of the histories that sources declare.
#[derive(Debug, Clone)]
pub enum Histories {
    /// Nothing: no service is asked. A view over such a source can't run.
    Unknown,
    /// Their files are looked up.
    Opened,
    /// What they were, by source: for views that have absorbed them.
    Known(BTreeMap<String, String>),
}

/// A source whose columns are known.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub connector: Connector,
    /// The events' columns; the timestamp is in microseconds UTC.
    pub schema: SchemaRef,
    /// The column with the event time.
    pub timestamp: String,
    pub event_id: Option<String>,
    /// The Avro contract, unless the source is files.
    pub contract: Option<Arc<Contract>>,
    /// For files: where they are, with relative paths resolved against the project folder.
    pub location: Option<String>,
    pub format: Option<FileFormat>,
    /// For files: what decides which events they hold, the same wherever the project is. If it changes, the source's
    /// views are new ones, and its files are read anew.
    pub of: Option<String>,
    /// What came before the stream, once its files were looked up.
    pub history: Option<Arc<History>>,
    /// Which files those are and what is in them, if anybody looked.
    pub history_version: Option<String>,
    pub options: Box<SourceOptions>,
    pub description: Option<String>,
}

impl Source {
    /// Reads the source's contract, or infers its columns from its files.
    pub fn resolve(project: &Path, definition: &SourceDef) -> Result<Self, Vec<Diagnostic>> {
        let options = &definition.options;
        let at = |span, message: String| Diagnostic::new(&definition.file, span, message);
        let (schema, contract, location, format) = match options.connector {
            Connector::Kafka => {
                let Some(name) = &options.schema else {
                    return Err(vec![
                        at(definition.name.span, "a source takes its columns from an Avro contract".into())
                            .expected("schema = '<contract>'"),
                    ]);
                };
                let contract = contract(project, name)
                    .map_err(|error| vec![super::diagnostic(&definition.file, name.span, &error)])?;
                (contract.columns().clone(), Some(Arc::new(contract)), None, None)
            }
            Connector::Files => {
                let (Some(location), Some(format)) = (&options.location, &options.format) else {
                    return Err(vec![
                        at(definition.name.span, "a source of files says where they are".into())
                            .expected("location = '<path>'"),
                    ]);
                };
                let path = resolve_path(project, &location.value);
                let inferred = files::infer(&definition.name.value, &path, Some(super::read_as(format.value)))
                    .map_err(|e| vec![super::diagnostic(&definition.file, location.span, &e.to_string())])?;
                // A timestamp that is no column is reported below, with its place.
                let schema = files::file_columns(&definition.name.value, &inferred, &options.timestamp.value);
                let schema = match inferred.field_with_name(&options.timestamp.value) {
                    Ok(_) => schema.map_err(|e| {
                        vec![super::diagnostic(&definition.file, options.timestamp.span, &e.to_string())]
                    })?,
                    Err(_) => Arc::new(inferred),
                };
                (schema, None, Some(path), Some(format.value))
            }
        };
        let mut problems = vec![];
        let instant = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
        problems.extend(check_column(&schema, &options.timestamp, &definition.file, instant, "a timestamp").err());
        if let Some(id) = &options.event_id {
            let simple = |t: &DataType| {
                t.is_integer() || matches!(t, DataType::Utf8 | DataType::FixedSizeBinary(_) | DataType::Binary)
            };
            problems.extend(check_column(&schema, id, &definition.file, simple, "a string, integer or bytes").err());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let of = location.as_ref().zip(format).map(|(_, format)| {
            let written = options.location.as_ref().map(|location| location.value.as_str()).unwrap_or_default();
            let (place, timestamp) = (files::place(project, written), &options.timestamp.value);
            format!("{format:?} {place}, timestamp {timestamp}, max_future {} µs", options.max_future)
        });
        Ok(Self {
            name: definition.name.value.clone(),
            connector: options.connector,
            schema,
            timestamp: options.timestamp.value.clone(),
            event_id: options.event_id.as_ref().map(|id| id.value.clone()),
            contract,
            location,
            format,
            of,
            history: None,
            history_version: None,
            options: options.clone(),
            description: options.description.clone().or_else(|| definition.doc.clone()),
        })
    }

    /// Finds out about the history that the source declares, if it does.
    pub async fn find_history(
        &mut self,
        project: &Path,
        file: &Arc<SourceFile>,
        histories: &Histories,
    ) -> Result<(), Diagnostic> {
        let (Some(history), Some(contract)) = (&self.options.history, &self.contract) else { return Ok(()) };
        match histories {
            Histories::Unknown => return Ok(()),
            Histories::Known(versions) => {
                self.history_version = versions.get(&self.name).cloned();
                return Ok(());
            }
            Histories::Opened => {}
        }
        let judge = Judge {
            source: self.name.clone(),
            contract: Arc::clone(contract),
            timestamp: self.timestamp.clone(),
            max_future: self.options.max_future,
        };
        let opened = History::open(&resolve_path(project, history.value.trim()), judge).await;
        let opened = opened.map_err(|e| super::diagnostic(file, history.span, &e.to_string()))?;
        self.history_version = Some(opened.version().to_owned());
        self.history = Some(Arc::new(opened));
        Ok(())
    }

    /// The `event_id` column, if the source names one.
    pub fn event_id_field(&self) -> Option<Field> {
        let id = self.event_id.as_ref()?;
        self.schema.field_with_name(id).ok().cloned()
    }

    /// The topic that the events are in.
    pub fn topic(&self) -> &str {
        self.options.topic.as_ref().map_or(&self.name, |topic| &topic.value)
    }

    /// The topic that events go to which can't be taken.
    pub fn dead_letter_topic(&self) -> String {
        let stated = self.options.dead_letter_topic.as_ref().map(|topic| topic.value.clone());
        stated.unwrap_or_else(|| format!("{}.dead-letter", self.topic()))
    }

    /// Under which a schema registry has the versions of the contract.
    pub fn subject(&self) -> String {
        format!("{}-value", self.topic())
    }

    /// Partitions of the embedded log.
    pub fn partitions(&self) -> u32 {
        self.options.partitions.as_ref().map_or(1, |p| p.value)
    }
}

/// A location as it is opened: a URL as it stands, a relative path from the project folder.
pub fn resolve_path(project: &Path, location: &str) -> String {
    if location.contains("://") || Path::new(location).is_absolute() {
        return location.to_owned();
    }
    project.join(location).to_string_lossy().into_owned()
}

/// Reads a contract. The error is one line: what; expected this; hint: that.
fn contract(project: &Path, name: &Spanned<String>) -> Result<Contract, String> {
    let folder = project.join("schemas");
    let file = folder.join(format!("{}.avsc", name.value));
    let text = std::fs::read_to_string(&file).map_err(|e| {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut known: Vec<String> =
            files.filter_map(|f| f.file_name().to_str()?.strip_suffix(".avsc").map(str::to_owned)).collect();
        known.sort();
        let why = if e.kind() == std::io::ErrorKind::NotFound { String::new() } else { format!(": {e}") };
        let expected = if known.is_empty() { String::new() } else { format!("; expected one of {}", known.join(", ")) };
        let hint = did_you_mean(&name.value, known.iter().map(String::as_str))
            .map(|h| format!("; hint: {h}"))
            .unwrap_or_default();
        format!("no contract `schemas/{}.avsc`{why}{expected}{hint}", name.value)
    })?;
    Contract::parse(&name.value, &text).map_err(|e| e.to_string())
}

/// Whether a named column is there, and of a type that fits.
pub(super) fn check_column(
    schema: &SchemaRef,
    column: &Spanned<String>,
    file: &Arc<SourceFile>,
    fits: impl Fn(&DataType) -> bool,
    wanted: &str,
) -> Result<(), Diagnostic> {
    let names = || schema.fields().iter().map(|f| f.name().as_str());
    match schema.field_with_name(&column.value) {
        Err(_) => Err(Diagnostic::new(file, column.span, format!("unknown column `{}`", column.value))
            .expected(format!("one of {}", names().collect::<Vec<_>>().join(", ")))
            .maybe_hint(did_you_mean(&column.value, names()))),
        Ok(field) if !fits(field.data_type()) => {
            let found = super::sql_type(field.data_type());
            Err(Diagnostic::new(file, column.span, format!("column `{}` is {found}", column.value)).expected(wanted))
        }
        Ok(_) => Ok(()),
    }
}
