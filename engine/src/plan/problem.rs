//! What planning finds wrong, before it is put at a place in a file.

use datafusion::common::{Column, DataFusionError, Location as DfLocation, SchemaError, Span as DfSpan};

use super::planner::UNKNOWN_RELATION;
use crate::sql::nearest;

/// A problem with a definition, and where in its query to point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    pub expected: Option<String>,
    pub hint: Option<String>,
    pub place: Place,
}

/// Where a problem is. Plans know names, not places: the query's text is searched for the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// 1-based line and column, and a length in characters.
    At(u32, u32, u32),
    /// The first occurrence of this identifier in the query.
    Name(String),
    /// This column of the outermost SELECT, from 0.
    Column(usize),
    Query,
}

pub type PlanResult<T> = Result<T, Problem>;

impl Problem {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), expected: None, hint: None, place: Place::Query }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at_name(mut self, name: impl Into<String>) -> Self {
        self.place = Place::Name(name.into());
        self
    }

    pub fn at_column(mut self, index: Option<usize>) -> Self {
        if let (Some(index), Place::Query) = (index, &self.place) {
            self.place = Place::Column(index);
        }
        self
    }
}

/// Every error of DataFusion's planner, in our words where we have better ones.
impl From<DataFusionError> for Problem {
    fn from(error: DataFusionError) -> Self {
        let span = error.diagnostic().and_then(|d| d.span);
        let mut problem = match error.find_root() {
            DataFusionError::SchemaError(schema, _) => schema_problem(schema),
            root => text_problem(&root.strip_backtrace()),
        };
        if let Some(span) = span {
            problem.place = place(span);
        }
        problem
    }
}

fn schema_problem(error: &SchemaError) -> Problem {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<String> = valid_fields.iter().map(|c| display(c, field)).collect();
            let mut problem = Problem::new(format!("unknown column `{}`", field.flat_name())).at_name(&field.name);
            let near = nearest(&field.name, valid_fields.iter().map(|c| c.name.as_str()));
            if let Some(near) = near {
                problem = problem.hint(format!("did you mean `{near}`?"));
            }
            if !names.is_empty() {
                problem = problem.expected(format!("one of {}", names.join(", ")));
            }
            problem
        }
        SchemaError::AmbiguousReference { field } => {
            Problem::new(format!("column `{}` is ambiguous: more than one relation has it", field.name))
                .hint(format!("write `<relation>.{}`", field.name))
                .at_name(&field.name)
        }
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            Problem::new(format!("two columns are named `{name}`"))
                .hint("give one of them another name with AS")
                .at_name(name)
        }
    }
}

/// Qualified only where the query itself was.
fn display(column: &Column, asked: &Column) -> String {
    if asked.relation.is_some() { column.flat_name() } else { column.name.clone() }
}

fn text_problem(text: &str) -> Problem {
    let text = [
        "Error during planning: ",
        "type_coercion",
        "caused by",
        "This feature is not implemented: ",
        "SQL error: ",
        "Invalid or Unsupported Configuration: ",
        "Execution error: ",
        "Arrow error: ",
    ]
    .iter()
    .fold(text.trim(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text).trim());
    if let Some(name) = text.strip_prefix(UNKNOWN_RELATION) {
        return Problem::new(format!("unknown relation `{name}`")).at_name(name);
    }
    if let Some(rest) = text.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or(rest);
        let mut problem = Problem::new(format!("unknown function `{name}`")).at_name(name);
        if let Some(near) = rest.split("Did you mean '").nth(1).and_then(|s| s.split('\'').next()) {
            problem = problem.hint(format!("did you mean `{near}`?"));
        }
        return problem;
    }
    if text.starts_with("Projections require unique expression names") {
        let name = text.split(" at position").next().and_then(|s| s.rsplit("AS ").next()).unwrap_or_default();
        let name = name.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
        return Problem::new(format!("two columns are named `{name}`"))
            .hint("give one of them another name with AS")
            .at_name(name);
    }
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim_end_matches('.').to_owned();
    let rest: Vec<&str> = lines.map(str::trim).filter(|l| !l.is_empty()).collect();
    let problem = Problem::new(first);
    if rest.is_empty() { problem } else { problem.expected(rest.join("; ")) }
}

fn place(span: DfSpan) -> Place {
    let DfSpan { start: DfLocation { line, column }, end } = span;
    let length = if end.line == line { end.column.saturating_sub(column).max(1) } else { 1 };
    Place::At(line as u32, column as u32, length as u32)
}
