//! What `explain` knows of a definition, before it is laid out.

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Facts {
    FeatureView(Box<ViewFacts>),
    FeatureService(Box<ServiceFacts>),
    TrainingSet(Box<TrainingFacts>),
    Source(Box<RelationFacts>),
    Table(Box<RelationFacts>),
    View(Box<RelationFacts>),
}

/// What every definition has.
#[derive(Debug, Serialize)]
pub struct About {
    pub name: String,
    pub description: Option<String>,
    pub owner: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Column {
    pub name: String,
    /// As SQL names it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// How it is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    pub description: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ViewFacts {
    #[serde(flatten)]
    pub about: About,
    pub source: SourceFacts,
    /// Names the compiled form; `None` while a dimension table's files are missing.
    pub fingerprint: Option<String>,
    pub keys: Vec<Column>,
    pub features: Vec<Column>,
    pub windows: Vec<Window>,
    pub state: State,
    pub streaming_plan: StreamingPlan,
    /// Over a spine: the point-in-time join.
    pub batch_plan: String,
    pub request_plan: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct SourceFacts {
    pub name: String,
    /// Where the events come from.
    pub reads: String,
    pub timestamp: String,
    pub event_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Window {
    pub name: String,
    /// The events that it covers, in words.
    pub covers: String,
    pub aggregates: Vec<Aggregate>,
}

#[derive(Debug, Serialize)]
pub struct Aggregate {
    pub expression: String,
    #[serde(rename = "type")]
    pub data_type: String,
    pub evaluation: Evaluation,
}

/// How an aggregate is computed over its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluation {
    /// A fold of our own, exactly mergeable, so the order and the chunks of events don't change it.
    Typed,
    /// One of the frame's rows.
    Row,
    /// DataFusion's accumulator over the frame's rows, in the order of events.
    Generic,
}

#[derive(Debug, Serialize)]
pub struct State {
    /// The columns that one state is for.
    pub key: Vec<String>,
    /// Stored of each event, besides its time and offset.
    pub columns: Vec<Column>,
    pub event_id: Option<String>,
    pub tile_micros: Option<i64>,
    pub lateness_micros: i64,
    /// How long behind the newest event rows are kept; `None`: for ever.
    pub kept_micros: Option<i64>,
    /// The latest rows that are kept however old.
    pub kept_rows: u64,
    /// Whether what is older is folded into a base state.
    pub base: bool,
    /// The same in sentences: a subject and what is to say about it.
    pub notes: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub struct StreamingPlan {
    pub read: String,
    /// DataFusion's logical plan of what runs on each event.
    pub row_stage: String,
    /// The tables with history that it looks up, each with the instant and how old its row may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub as_of: Vec<String>,
    pub fold: String,
    pub write: String,
}

#[derive(Debug, Serialize)]
pub struct ServiceFacts {
    #[serde(flatten)]
    pub about: About,
    /// The columns of a request row.
    pub request: Vec<Column>,
    pub columns: Vec<Column>,
    pub lookups: Vec<Lookup>,
    pub request_plan: String,
    pub batch_plan: String,
}

#[derive(Debug, Serialize)]
pub struct Lookup {
    /// The name by which the query calls it.
    pub alias: String,
    pub relation: String,
    /// "feature view" or "table".
    pub of: &'static str,
    pub on: String,
    /// Of a table with history: the instant, and how old its row may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct TrainingFacts {
    #[serde(flatten)]
    pub about: About,
    pub service: String,
    /// The spine's column with the instant to evaluate at.
    pub timestamp: String,
    /// The spine's columns, then the service's.
    pub columns: Vec<Column>,
    pub spine_plan: String,
    pub batch_plan: String,
}

/// A source, a table or a shared view.
#[derive(Debug, Serialize)]
pub struct RelationFacts {
    #[serde(flatten)]
    pub about: About,
    pub options: Vec<(String, String)>,
    pub columns: Vec<Column>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The feature views that read it.
    pub used_by: Vec<String>,
}
