//! Definitions as their files state them: parsed and checked as far as one statement alone allows.
//!
//! Names are normalised as DataFusion does it (lower case unless quoted), durations are microseconds, and every
//! query's named windows and ASOF JOINs are already resolved (see [`resolve_windows`](super::resolve_windows) and
//! [`resolve_asof_joins`](super::resolve_asof_joins)). Whether tables, columns and contracts exist is the catalogue's question.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{DataType, Query};

use super::diagnostic::{SourceFile, Span};

/// One `CREATE …` statement.
#[derive(Debug, Clone)]
pub enum Definition {
    Source(SourceDef),
    Table(TableDef),
    View(ViewDef),
    FeatureView(FeatureViewDef),
    FeatureService(FeatureServiceDef),
    TrainingSet(TrainingSetDef),
}

/// A value, and where the file states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// A name: lower case unless quoted.
pub type Name = Spanned<String>;

/// An option of a `WITH (…)` or `OPTIONS (…)` clause, before its meaning is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue {
    pub key: Name,
    /// The value's text: a string's content, a number or boolean as written.
    pub value: String,
    pub value_span: Span,
    pub kind: OptionKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    String,
    Number,
    Bool,
}

/// `CREATE SOURCE name WITH (…)`.
#[derive(Debug, Clone)]
pub struct SourceDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    /// The statement: its first line, from `CREATE` on.
    pub span: Span,
    /// The `--` comments directly above `CREATE`.
    pub doc: Option<String>,
    pub options: Box<SourceOptions>,
}

/// A source's checked options: `schema` is there for Kafka, `location` and `format` for files, and none of the other kind's.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    pub connector: Connector,
    /// The Avro contract's name: `transactions.v1` is `schemas/transactions.v1.avsc`.
    pub schema: Option<Spanned<String>>,
    /// The Kafka topic, or the embedded log's; the source's name where absent.
    pub topic: Option<Spanned<String>>,
    /// The column with the event time.
    pub timestamp: Spanned<String>,
    /// The column whose value, within a key and an event time, names an event.
    pub event_id: Option<Spanned<String>>,
    /// Files: a path or URL, with `*` allowed.
    pub location: Option<Spanned<String>>,
    /// Files: stated, or read from the location's ending.
    pub format: Option<Spanned<FileFormat>>,
    /// Where the source's past lies as files.
    pub history: Option<Spanned<String>>,
    /// How far past the clock an event time may lie, in microseconds, before the event is refused.
    pub max_future: i64,
    /// How old events of the archive may get, in microseconds, by their event time; for ever where absent.
    pub retention: Option<Spanned<i64>>,
    /// Partitions of the embedded log.
    pub partitions: Option<Spanned<u32>>,
    /// Where a new consumer starts; the earliest where absent.
    pub start: Option<Spanned<Start>>,
    pub dead_letter_topic: Option<Spanned<String>>,
    /// `kafka.*` options, handed to the Kafka client; keys without the prefix.
    pub kafka: BTreeMap<String, String>,
    pub description: Option<String>,
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connector {
    Kafka,
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    Parquet,
    Csv,
    Ndjson,
    Avro,
}

/// Where a new consumer of a topic starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// This offset in every partition.
    Offset(u64),
    /// The first event that arrived at or after this instant, in microseconds UTC.
    Time(i64),
}

/// `CREATE EXTERNAL TABLE name [(columns)] STORED AS … LOCATION '…' [OPTIONS (…)]`.
#[derive(Debug, Clone)]
pub struct TableDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    pub span: Span,
    pub doc: Option<String>,
    /// Empty: the files say which.
    pub columns: Vec<TableColumn>,
    pub file_type: FileFormat,
    pub location: Spanned<String>,
    /// Where its rows change over time.
    pub history: Option<HistoryDef>,
    /// DataFusion's options of the file type, known and typed to it; keys in full (`format.has_header`).
    pub options: Vec<OptionValue>,
}

/// The `timestamp` and `max_age` of a table's `OPTIONS`.
#[derive(Debug, Clone)]
pub struct HistoryDef {
    /// The column with the instant from which on a row holds.
    pub timestamp: Spanned<String>,
    /// How long it holds at most, in microseconds, more than zero.
    pub max_age: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct TableColumn {
    pub name: Name,
    pub data_type: DataType,
    pub nullable: bool,
}

/// `CREATE VIEW name AS query`.
#[derive(Debug, Clone)]
pub struct ViewDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    pub span: Span,
    pub doc: Option<String>,
    pub query: Box<Query>,
    /// The query's first line.
    pub query_span: Span,
}

/// `CREATE FEATURE VIEW name [WITH (…)] AS query`.
#[derive(Debug, Clone)]
pub struct FeatureViewDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    pub span: Span,
    pub doc: Option<String>,
    pub options: FeatureViewOptions,
    pub query: Box<Query>,
    pub query_span: Span,
    /// By output column: the `--` comments directly above its item in the outermost `SELECT`, or at the end of the item's line.
    pub column_docs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub struct FeatureViewOptions {
    pub description: Option<String>,
    pub owner: Option<String>,
    /// Tile length in microseconds, more than zero.
    pub tile: Option<Spanned<i64>>,
    /// How much longer than its longest frame a timeline is kept, in microseconds.
    pub lateness: Option<Spanned<i64>>,
}

/// `CREATE FEATURE SERVICE name (column TYPE, …) [WITH (…)] AS query`.
#[derive(Debug, Clone)]
pub struct FeatureServiceDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    pub span: Span,
    pub doc: Option<String>,
    /// The columns of `request`: at least one, no name twice.
    pub signature: Vec<SignatureColumn>,
    pub options: FeatureServiceOptions,
    pub query: Box<Query>,
    pub query_span: Span,
    pub column_docs: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct SignatureColumn {
    pub name: Name,
    pub data_type: DataType,
    /// The column's name and type.
    pub span: Span,
}

#[derive(Debug, Clone, Default)]
pub struct FeatureServiceOptions {
    pub description: Option<String>,
    pub owner: Option<String>,
}

/// `CREATE TRAINING SET name WITH (…) AS query`.
#[derive(Debug, Clone)]
pub struct TrainingSetDef {
    pub name: Name,
    pub file: Arc<SourceFile>,
    pub span: Span,
    pub doc: Option<String>,
    pub options: TrainingSetOptions,
    pub query: Box<Query>,
    pub query_span: Span,
}

#[derive(Debug, Clone)]
pub struct TrainingSetOptions {
    pub service: Spanned<String>,
    /// The spine's column with the instant to evaluate at.
    pub timestamp: Spanned<String>,
    pub description: Option<String>,
    pub owner: Option<String>,
}

macro_rules! common {
    ($self:ident.$field:ident) => {
        match $self {
            Definition::Source(definition) => &definition.$field,
            Definition::Table(definition) => &definition.$field,
            Definition::View(definition) => &definition.$field,
            Definition::FeatureView(definition) => &definition.$field,
            Definition::FeatureService(definition) => &definition.$field,
            Definition::TrainingSet(definition) => &definition.$field,
        }
    };
}

impl Definition {
    pub fn name(&self) -> &Name {
        common!(self.name)
    }

    pub fn file(&self) -> &Arc<SourceFile> {
        common!(self.file)
    }

    pub fn span(&self) -> Span {
        *common!(self.span)
    }

    pub fn doc(&self) -> Option<&str> {
        common!(self.doc).as_deref()
    }

    /// What it is, in words: "feature view".
    pub fn kind(&self) -> &'static str {
        match self {
            Definition::Source(_) => "source",
            Definition::Table(_) => "table",
            Definition::View(_) => "view",
            Definition::FeatureView(_) => "feature view",
            Definition::FeatureService(_) => "feature service",
            Definition::TrainingSet(_) => "training set",
        }
    }
}

impl SourceDef {
    /// The topic it reads: stated, or else its name.
    pub fn topic(&self) -> &str {
        self.options.topic.as_ref().map_or(&self.name.value, |topic| &topic.value)
    }
}

impl FileFormat {
    /// Every format, with the names that options and `STORED AS` know it by; the first is its own.
    pub const NAMES: [(&'static str, FileFormat); 5] = [
        ("parquet", FileFormat::Parquet),
        ("csv", FileFormat::Csv),
        ("ndjson", FileFormat::Ndjson),
        ("json", FileFormat::Ndjson),
        ("avro", FileFormat::Avro),
    ];
}
