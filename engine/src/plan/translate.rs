//! DataFusion's planning errors in the words of definitions: SQL's names of types, no plan, no signature, no internals.
//!
//! DataFusion gives texts, not kinds; each is recognised by its wording. One that isn't known comes through as its
//! first line, with its types renamed.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DataFusionError, Location as DfLocation, SchemaError, Span as DfSpan};

use super::planner::UNKNOWN_RELATION;
use super::problem::{Place, Problem};
use super::words::sql_type;
use crate::sql::{did_you_mean, nearest};

const TYPES: [&str; 13] = [
    "BIGINT",
    "INT",
    "SMALLINT",
    "TINYINT",
    "DOUBLE",
    "REAL",
    "VARCHAR",
    "BOOLEAN",
    "TIMESTAMP",
    "DATE",
    "DECIMAL",
    "NUMERIC",
    "INTERVAL",
];

impl From<DataFusionError> for Problem {
    fn from(error: DataFusionError) -> Self {
        let span = error.diagnostic().and_then(|d| d.span);
        let mut problem = match error.find_root() {
            DataFusionError::SchemaError(schema, _) => schema_problem(schema),
            root => text_problem(&root.strip_backtrace()),
        };
        if let (Some(span), true) = (span, problem.place != Place::Item) {
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
            if let Some(near) = near.and_then(|near| valid_fields.iter().find(|c| c.name == near)) {
                problem = problem.hint(format!("did you mean `{}`?", display(near, field)));
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
            twice(name).at_name(name)
        }
    }
}

fn twice(name: &str) -> Problem {
    Problem::new(format!("two columns are named `{name}`")).hint("give one of them another name with AS")
}

/// Qualified only where the query itself was.
fn display(column: &Column, asked: &Column) -> String {
    if asked.relation.is_some() { column.flat_name() } else { column.name.clone() }
}

fn text_problem(text: &str) -> Problem {
    let mut text = text.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    known(text).unwrap_or_else(|| {
        let first = text.lines().next().unwrap_or_default();
        Problem::new(renamed(first.trim_end_matches('.')))
    })
}

const PREFIXES: [&str; 11] = [
    "Error during planning: ",
    "type_coercion",
    "caused by",
    "This feature is not implemented: ",
    "SQL error: ",
    "Invalid or Unsupported Configuration: ",
    "Execution error: ",
    "Internal error: ",
    "Arrow error: ",
    "Parser error: ",
    "External error: ",
];

fn known(text: &str) -> Option<Problem> {
    names(text).or_else(|| types(text)).or_else(|| shapes(text))
}

/// Names that aren't known, or known twice.
fn names(text: &str) -> Option<Problem> {
    if let Some(name) = text.strip_prefix(UNKNOWN_RELATION) {
        return Some(Problem::new(format!("unknown relation `{name}`")).at_from(name));
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        let problem = Problem::new(format!("unknown function `{name}`")).at_name(name);
        return Some(match between(text, "Did you mean '", "'") {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        });
    }
    if let Some(name) = text.strip_prefix("Unsupported SQL type ") {
        let problem = Problem::new(format!("unknown type `{name}`")).at_name(name);
        let problem =
            problem.expected("a SQL type such as BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, DECIMAL(18, 2)");
        return Some(match did_you_mean(name, TYPES) {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }
    if text.starts_with("Projections require unique expression names") {
        let name = text.split(" at position").next()?.rsplit("AS ").next()?;
        let name = name.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
        let second = text.rsplit(" at position ").next().and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        return Some(twice(name).at_column(second).at_name(name));
    }
    None
}

/// Types that don't go together.
fn types(text: &str) -> Option<Problem> {
    if let Some(sum) = between(text, "Cannot coerce arithmetic expression ", " to valid types") {
        return Some(
            Problem::new(format!("`{}` has no meaning", operation(sum))).hint("CAST one of the two").at_item(),
        );
    }
    if let Some(comparison) = text.strip_prefix("Cannot infer common argument type for comparison operation ") {
        let problem = Problem::new(format!("`{}` compares what can't be compared", operation(comparison)));
        return Some(problem.hint("CAST one of the two").at_item());
    }
    if text.starts_with("Failed to coerce") && text.contains("CASE WHEN") {
        return Some(
            Problem::new("the branches of CASE have no type in common").hint("CAST them to one type").at_item(),
        );
    }
    if let Some(call) = between(text, "No function matches the given name and argument types '", "'.") {
        return Some(call_problem(text, call));
    }
    if let Some(found) = between(text, "Cannot create filter with non-boolean predicate ", "\n")
        .or_else(|| text.strip_prefix("Cannot create filter with non-boolean predicate "))
    {
        let of = found.rsplit(" returning ").next().map(renamed).unwrap_or_default();
        return Some(
            Problem::new(format!("WHERE takes a condition, not {of}"))
                .expected("a comparison, such as x > 0")
                .at_clause("where"),
        );
    }
    if let Some(text) = between(text, "Invalid input syntax for type interval: \"", "\"") {
        return Some(
            Problem::new(format!("'{text}' can't be read as an INTERVAL"))
                .expected("a number and a unit, such as INTERVAL '1 hour', '30 minutes', '7 days' or '1 month'")
                .at_name(format!("'{text}")),
        );
    }
    if let Some(value) = between(text, "Cannot cast string '", "' to value of UInt64") {
        return Some(
            Problem::new(format!("a ROWS frame is bounded by a number of events, not by '{value}'"))
                .expected("ROWS BETWEEN 9 PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW")
                .at_name("rows"),
        );
    }
    None
}

/// A function called with arguments that it doesn't take.
fn call_problem(text: &str, call: &str) -> Problem {
    let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
    let problem = Problem::new(format!("there is no `{name}({}`", renamed(arguments))).at_name(name);
    let candidates = text.split("Candidate functions:").nth(1).unwrap_or_default();
    // Of signatures, only those that name types: the others are DataFusion's terms.
    let plain = |line: &&str| {
        line.starts_with(name)
            && !["Coercible", "Numeric", "OneOf", "Any", "Signature", "User"].iter().any(|t| line.contains(t))
    };
    let known: Vec<String> = candidates.lines().map(str::trim).filter(plain).map(renamed).collect();
    match known.as_slice() {
        [] => problem.hint("CAST its arguments to types that it takes"),
        known => problem.expected(known.join(", ")),
    }
}

/// Queries that can't be a query.
fn shapes(text: &str) -> Option<Problem> {
    if text.starts_with("Column in SELECT must be in GROUP BY")
        || text.starts_with("Column in HAVING must be in GROUP BY")
    {
        let name = between(text, "column \"", "\"").map(|c| c.rsplit('.').next().unwrap_or(c)).unwrap_or("*");
        return Some(
            Problem::new(format!("`{name}` stands beside an aggregate that has no OVER"))
                .expected("aggregates over a window: COUNT(*) OVER (PARTITION BY <key> ORDER BY <timestamp> …)")
                .hint("GROUP BY, HAVING and plain aggregates make one row of many; a feature has a value at every instant")
                .at_item(),
        );
    }
    if text.starts_with("Window function calls cannot be nested") {
        return Some(
            Problem::new("a window can't stand inside the call of another window")
                .hint("compute the inner one from the events, or combine both results")
                .at_item(),
        );
    }
    if text.contains("end bound cannot be UNBOUNDED PRECEDING") {
        return Some(
            Problem::new("a frame can't end at UNBOUNDED PRECEDING").expected("… AND CURRENT ROW").at_name("unbounded"),
        );
    }
    if text.contains("start bound cannot be UNBOUNDED FOLLOWING") {
        return Some(
            Problem::new("a frame can't start at UNBOUNDED FOLLOWING")
                .expected("… PRECEDING AND CURRENT ROW")
                .at_name("unbounded"),
        );
    }
    if text.contains("frame offsets for ROWS / GROUPS must be non negative integers") {
        return Some(
            Problem::new("a ROWS frame is bounded by a number of events that is known beforehand")
                .expected("a whole number of 0 or more: ROWS BETWEEN 9 PRECEDING AND CURRENT ROW")
                .at_name("rows"),
        );
    }
    None
}

/// `Float64 + Utf8` with SQL's types.
fn operation(text: &str) -> String {
    let text = text.lines().next().unwrap_or_default().trim_end_matches('.');
    for symbol in
        [" + ", " - ", " * ", " / ", " % ", " = ", " != ", " <> ", " <= ", " >= ", " < ", " > ", " AND ", " OR "]
    {
        if let Some((left, right)) = text.split_once(symbol) {
            return format!("{}{symbol}{}", renamed(left), renamed(right));
        }
    }
    renamed(text)
}

/// A text with every Arrow type that stands in it as a word under its SQL name.
fn renamed(text: &str) -> String {
    if let Some(name) = type_name(text) {
        return name;
    }
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        out.push_str(&type_name(&word).unwrap_or_else(|| word.clone()));
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

fn type_name(text: &str) -> Option<String> {
    // Words of English that Arrow would read as types.
    let arrow = text.starts_with(char::is_uppercase) && text != "Null";
    arrow.then(|| text.parse::<DataType>().ok()).flatten().map(|t| sql_type(&t))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = text.split_once(start)?.1;
    rest.split_once(end).map(|(found, _)| found)
}

pub(super) fn place(span: DfSpan) -> Place {
    let DfSpan { start: DfLocation { line, column }, end } = span;
    let length = if end.line == line { end.column.saturating_sub(column).max(1) } else { 1 };
    Place::At(line as u32, column as u32, length as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let Problem { message, expected, hint, .. } = text_problem(text);
        [Some(message), expected, hint].into_iter().flatten().collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn texts_become_ours() {
        let cases = [
            (
                "Error during planning: Cannot coerce arithmetic expression Float64 + Utf8 to valid types",
                "`DOUBLE + VARCHAR` has no meaning | CAST one of the two",
            ),
            (
                "Internal error: Function 'sum' failed to match any signature. No function matches the given name and argument types 'sum(Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsum(Coercible(Decimal))",
                "there is no `sum(VARCHAR)` | CAST its arguments to types that it takes",
            ),
            (
                "This feature is not implemented: Unsupported SQL type NUMERC",
                "unknown type `NUMERC` | a SQL type such as BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, DECIMAL(18, 2) | did you mean `NUMERIC`?",
            ),
            ("Error during planning: something of Utf8 went wrong.\nwith more", "something of VARCHAR went wrong"),
        ];
        for (text, ours) in cases {
            assert_eq!(said(text), ours);
        }
    }
}
