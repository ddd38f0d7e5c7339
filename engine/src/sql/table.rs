//! `CREATE EXTERNAL TABLE`: DataFusion's own statement, read by its own parser, less what a dimension table has no use for.
//!
//! Two of its OPTIONS are ours, and make it a table with history: `timestamp` and `max_age`.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::sql::parser::{CreateExternalTable, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::{
    ast::{ColumnDef, ColumnOption, Ident, Spanned as _},
    tokenizer::{Token, TokenWithSpan},
};

use super::ast::{FileFormat, HistoryDef, Name, OptionKind, OptionValue, Spanned, TableColumn, TableDef};
use super::cursor::{Cursor, Parsed, Reported, unknown_type};
use super::diagnostic::{Diagnostic, SourceFile, Span};
use super::errors::datafusion_error;
use super::options::{OptionReader, Options};
use super::statement::{Head, without_leading_blanks};
use super::suggest::did_you_mean;
use super::tokens::{is_blank, is_word};

/// Reads the statement from `EXTERNAL` on; `head` reads the name.
pub(super) fn table(cursor: &mut Cursor, head: impl FnOnce(&mut Cursor) -> Parsed<Head>) -> Parsed<TableDef> {
    let place = cursor.peek_span();
    if cursor.take_words(&["UNBOUNDED"]) {
        let error = cursor.error(place, "a dimension table has an end").expected("CREATE EXTERNAL TABLE");
        cursor.report(error.hint("leave out UNBOUNDED; a stream of events is a CREATE SOURCE"));
    }
    cursor.expect_word("EXTERNAL")?;
    cursor.expect_word("TABLE")?;
    let Head { name, span, doc } = head(cursor)?;
    let tokens = without_leading_blanks(cursor.tokens);
    let create = parse(cursor.file, tokens, &name).map_err(|error| {
        cursor.report(error);
        Reported
    })?;
    let Clauses { stored_as, location, options, unknown } = clauses(cursor.file, tokens);
    for (span, clause) in unknown {
        let error = cursor.error(span, format!("{clause} has no meaning for a dimension table"));
        cursor.report(error.expected("columns, STORED AS, LOCATION and OPTIONS").hint("leave it out"));
    }
    let file_type = file_type(cursor, &create.file_type, stored_as.unwrap_or(name.span));
    let location = match create.locations.as_slice() {
        [one] if !one.trim().is_empty() => Some(Spanned { value: one.clone(), span: location.unwrap_or(name.span) }),
        locations => {
            let message = if locations.len() > 1 { "a table has one location" } else { "the location is empty" };
            let error =
                cursor.error(location.unwrap_or(name.span), message).expected("a path or URL: LOCATION 'merchants/'");
            cursor.report(error.hint("a folder stands for every file in it"));
            None
        }
    };
    for constraint in &create.constraints {
        let error = cursor.error(Span::from(constraint.span()), "constraints have no meaning for a dimension table");
        cursor.report(error.hint("leave it out"));
    }
    let columns = create.columns.iter().filter_map(|column| table_column(cursor, column)).collect();
    let file_type = file_type.ok_or(Reported)?;
    let (ours, options): (Vec<_>, Vec<_>) =
        options.into_iter().partition(|option| HISTORY.contains(&option.key.value.as_str()));
    let history = history(cursor, ours, name.span);
    let options = options.into_iter().filter_map(|option| checked(cursor, file_type, option)).collect();
    let location = location.ok_or(Reported)?;
    Ok(TableDef { name, file: Arc::clone(cursor.file), span, doc, columns, file_type, location, history, options })
}

/// The options of a table with history.
const HISTORY: [&str; 2] = ["timestamp", "max_age"];

fn history(cursor: &mut Cursor, options: Vec<OptionValue>, at: Span) -> Option<HistoryDef> {
    for key in HISTORY {
        if let Some(again) = options.iter().filter(|option| option.key.value == key).nth(1) {
            cursor.report(cursor.error(again.key.span, format!("option `{key}` is stated twice")));
            return None;
        }
    }
    let mut reader = OptionReader::new(cursor, &HISTORY, Options::from(options), at);
    let lone = reader.stated("max_age").filter(|_| !reader.tried("timestamp"));
    if let Some(span) = lone {
        let message = "`max_age` has no meaning for a table without `timestamp`";
        let hint = "the timestamp is the column from which on a row holds; without it, rows hold for ever";
        reader.error(span, message, "timestamp '<column>' beside it", Some(hint.to_owned()));
    }
    let (timestamp, max_age) = (reader.text("timestamp"), reader.duration("max_age", 1));
    Some(HistoryDef { timestamp: timestamp?, max_age: max_age.map(|age| age.value) })
}

fn parse(file: &Arc<SourceFile>, tokens: &[TokenWithSpan], name: &Name) -> Result<CreateExternalTable, Diagnostic> {
    let parsed = DFParserBuilder::new(tokens.to_vec()).build().and_then(|mut parser| parser.parse_statement());
    match parsed {
        Ok(Statement::CreateExternalTable(create)) => Ok(create),
        Ok(_) => Err(Diagnostic::new(file, Span::new(1, 1, 1), "this isn't CREATE EXTERNAL TABLE")),
        Err(error) => {
            let diagnostic = datafusion_error(file, tokens, &error);
            Err(
                match ["STORED AS", "LOCATION"]
                    .into_iter()
                    .find(|clause| diagnostic.message.starts_with(&format!("Missing {clause}")))
                {
                    Some(clause) => Diagnostic::new(file, name.span, format!("the table has no {clause}"))
                        .expected("CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'"),
                    None if diagnostic.message == "unexpected `=`" => {
                        diagnostic.hint("in OPTIONS a name and its value stand side by side: timestamp 'since'")
                    }
                    None => diagnostic,
                },
            )
        }
    }
}

/// Where the statement says what; DataFusion's parser keeps no places.
#[derive(Default)]
struct Clauses {
    stored_as: Option<Span>,
    location: Option<Span>,
    options: Vec<OptionValue>,
    unknown: Vec<(Span, &'static str)>,
}

fn clauses(file: &Arc<SourceFile>, tokens: &[TokenWithSpan]) -> Clauses {
    let tokens: Vec<&TokenWithSpan> = tokens.iter().filter(|token| !is_blank(token)).collect();
    let mut found = Clauses::default();
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        let place = |n: usize| tokens.get(index + n).map(|token| file.span(token.span));
        let followed_by = |word: &str| tokens.get(index + 1).is_some_and(|next| is_word(&next.token, word));
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            // The table's own name is no clause.
            _ if index < 4 => {}
            word if is_word(word, "STORED") && followed_by("AS") => found.stored_as = place(2),
            word if is_word(word, "LOCATION") => found.location = place(1),
            word if is_word(word, "PARTITIONED") => found.unknown.extend(place(0).map(|span| (span, "PARTITIONED BY"))),
            word if is_word(word, "WITH") && followed_by("ORDER") => {
                found.unknown.extend(place(0).map(|span| (span, "WITH ORDER")))
            }
            word if is_word(word, "OPTIONS") => {
                found.options = table_options(file, tokens.get(index + 2..).unwrap_or_default())
            }
            _ => {}
        }
    }
    found
}

/// `key value, …)`, which DataFusion's parser has already accepted.
fn table_options(file: &Arc<SourceFile>, tokens: &[&TokenWithSpan]) -> Vec<OptionValue> {
    let end = tokens.iter().position(|token| token.token == Token::RParen).unwrap_or(tokens.len());
    let list = tokens.get(..end).unwrap_or_default().split(|token| token.token == Token::Comma);
    list.filter_map(|option| {
        let (value, key) = option.split_last()?;
        let key_span = file.span(key.first()?.span).to(file.span(key.last()?.span));
        let key: String = key.iter().map(|token| content(&token.token)).collect::<String>().to_lowercase();
        // DataFusion's rule: an option without a namespace is one of the format's.
        let own = key.contains('.') || HISTORY.contains(&key.as_str());
        let key = if own { key } else { format!("format.{key}") };
        let kind = match &value.token {
            Token::Number(..) => OptionKind::Number,
            token if is_word(token, "true") || is_word(token, "false") => OptionKind::Bool,
            _ => OptionKind::String,
        };
        Some(OptionValue {
            key: Name { value: key, span: key_span },
            value: content(&value.token),
            value_span: file.span(value.span),
            kind,
        })
    })
    .collect()
}

fn content(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) | Token::EscapedStringLiteral(text) => {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn file_type(cursor: &mut Cursor, stated: &str, span: Span) -> Option<FileFormat> {
    let found = FileFormat::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(stated));
    if found.is_none() {
        let names = FileFormat::NAMES.map(|(name, _)| name);
        let error = cursor.error(span, format!("`{stated}` isn't a format that a table can be stored as"));
        cursor.report(error.expected("one of PARQUET, CSV, NDJSON, AVRO").maybe_hint(did_you_mean(stated, names)));
    }
    found.map(|(_, format)| *format)
}

fn table_column(cursor: &mut Cursor, column: &ColumnDef) -> Option<TableColumn> {
    let Ident { value, quote_style, span } = &column.name;
    let span = Span::from(*span);
    let value = if quote_style.is_some() { value.clone() } else { value.to_ascii_lowercase() };
    let mut nullable = true;
    for option in &column.options {
        match option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => nullable = false,
            _ => {
                let error = cursor.error(
                    span,
                    format!("column `{value}` has `{}`, which has no meaning for a dimension table", option.option),
                );
                cursor.report(error.expected("a name, a type, and NULL or NOT NULL"));
            }
        }
    }
    if let Some(error) = unknown_type(cursor.file, &column.data_type, span) {
        cursor.report(error);
        return None;
    }
    Some(TableColumn { name: Name { value, span }, data_type: column.data_type.clone(), nullable })
}

/// An option that DataFusion knows for this format, with a value that it takes.
fn checked(cursor: &mut Cursor, format: FileFormat, option: OptionValue) -> Option<OptionValue> {
    let mut known = TableOptions::new();
    let config = match format {
        FileFormat::Parquet => Some(ConfigFileType::PARQUET),
        FileFormat::Csv => Some(ConfigFileType::CSV),
        FileFormat::Ndjson => Some(ConfigFileType::JSON),
        FileFormat::Avro => None,
    };
    let names: Vec<String> = match config {
        Some(config) => {
            known.set_config_format(config);
            known.entries().into_iter().map(|entry| entry.key).collect()
        }
        None => Vec::new(),
    };
    let key = &option.key.value;
    // Parquet takes some of its options per column: `format.compression::country`.
    let name = key.split("::").next().unwrap_or(key);
    if !names.iter().any(|known| known == name) {
        let error = cursor.error(option.key.span, format!("unknown option `{key}`"));
        let known = HISTORY.into_iter().chain(names.iter().map(String::as_str));
        let stated = key.strip_prefix("format.").unwrap_or(key);
        let meant = did_you_mean(key, names.iter().map(String::as_str)).or_else(|| did_you_mean(stated, HISTORY));
        let error = error.expected(format!("one of {}", known.collect::<Vec<_>>().join(", "))).maybe_hint(meant);
        cursor.report(error);
        return None;
    }
    if let Err(error) = known.set(key, &option.value) {
        let cause = match error.find_root() {
            DataFusionError::External(cause) => cause.to_string(),
            root => root.strip_backtrace(),
        };
        let error = cursor
            .error(option.value_span, format!("`{key}` can't be `{}`", option.value))
            .expected("a value that DataFusion takes for it");
        cursor.report(error.hint(format!("DataFusion says: {}", cause.lines().next().unwrap_or_default())));
        return None;
    }
    Some(option)
}
