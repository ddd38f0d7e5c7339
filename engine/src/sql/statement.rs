//! The grammar of definitions: one statement's tokens become a [`Definition`], or errors, or both.
//!
//! A definition comes out whenever all that it can't be without could be read; an error beside it fails the run all
//! the same, and the catalogue can still look for more.

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::asof::AS_OF;
use super::ast::{
    Definition, FeatureServiceDef, FeatureServiceOptions, FeatureViewDef, FeatureViewOptions, Name, SignatureColumn,
    SourceDef, TrainingSetDef, TrainingSetOptions, ViewDef,
};
use super::cursor::{Cursor, Parsed, Reported};
use super::diagnostic::{Diagnostic, SourceFile, Span};
use super::docs::{column_docs, statement_doc};
use super::options::{OptionReader, parse_options};
use super::source::source_options;
use super::suggest::nearest;
use super::table::table;
use super::tokens::is_blank;

const KINDS: [&str; 6] = ["SOURCE", "EXTERNAL TABLE", "VIEW", "FEATURE VIEW", "FEATURE SERVICE", "TRAINING SET"];
const LONGEST_NAME: usize = 128;
/// What a service's SQL calls its input.
const REQUEST: &str = "request";

/// Reads one statement; no tokens but blanks are none.
pub(super) fn parse_statement(
    file: &Arc<SourceFile>,
    tokens: &[TokenWithSpan],
) -> (Option<Definition>, Vec<Diagnostic>) {
    let mut cursor = Cursor::new(file, tokens);
    let definition = if cursor.at_end() { None } else { definition(&mut cursor).ok() };
    (definition, cursor.finish())
}

/// The name that a statement defines, as far as it can be told.
pub(super) fn defined_name(file: &Arc<SourceFile>, tokens: &[TokenWithSpan]) -> Option<String> {
    let mut cursor = Cursor::new(file, tokens);
    let _errors_are_not_wanted = definition(&mut cursor);
    cursor.name
}

/// What every definition has.
pub(super) struct Head {
    pub name: Name,
    pub span: Span,
    pub doc: Option<String>,
}

fn definition(cursor: &mut Cursor) -> Parsed<Definition> {
    let start = cursor.peek_span();
    if !cursor.take_words(&["CREATE"]) {
        return Err(not_a_definition(cursor));
    }
    let replace = cursor.peek_span();
    if cursor.take_words(&["OR", "REPLACE"]) {
        let error = cursor.error(replace, "a definition can't replace another").expected("CREATE and what it creates");
        cursor.report(
            error.hint("leave out OR REPLACE: the files say what there is, and a changed file is a changed definition"),
        );
    }
    if cursor.at_word("EXTERNAL") || (cursor.at_word("UNBOUNDED") && matches!(cursor.peek_nth(1), Token::Word(_))) {
        return table(cursor, |cursor| head(cursor, start)).map(Definition::Table);
    }
    if cursor.take_words(&["SOURCE"]) {
        source(cursor, start).map(Definition::Source)
    } else if cursor.take_words(&["VIEW"]) {
        view(cursor, start).map(Definition::View)
    } else if cursor.take_words(&["FEATURE", "VIEW"]) {
        feature_view(cursor, start).map(Definition::FeatureView)
    } else if cursor.take_words(&["FEATURE", "SERVICE"]) {
        feature_service(cursor, start).map(Definition::FeatureService)
    } else if cursor.take_words(&["TRAINING", "SET"]) {
        training_set(cursor, start).map(Definition::TrainingSet)
    } else {
        Err(unknown_kind(cursor))
    }
}

fn source(cursor: &mut Cursor, start: Span) -> Parsed<SourceDef> {
    let Head { name, span, doc } = head(cursor, start)?;
    cursor.expect_word("WITH")?;
    let options = parse_options(cursor)?;
    let options = source_options(cursor, options, name.span);
    cursor.expect_end()?;
    let options = Box::new(options.ok_or(Reported)?);
    Ok(SourceDef { name, file: Arc::clone(cursor.file), span, doc, options })
}

fn view(cursor: &mut Cursor, start: Span) -> Parsed<ViewDef> {
    let Head { name, span, doc } = head(cursor, start)?;
    if cursor.at_word("WITH") {
        let error = cursor.unexpected_next("`AS` and a query").hint("a view has no options; CREATE FEATURE VIEW has");
        cursor.report(error);
        return Err(Reported);
    }
    cursor.expect_word("AS")?;
    let parsed = cursor.query()?;
    Ok(ViewDef { name, file: Arc::clone(cursor.file), span, doc, query: parsed.query, query_span: parsed.span })
}

fn feature_view(cursor: &mut Cursor, start: Span) -> Parsed<FeatureViewDef> {
    let Head { name, span, doc } = head(cursor, start)?;
    let mut options = FeatureViewOptions::default();
    if cursor.take_words(&["WITH"]) {
        let stated = parse_options(cursor)?;
        let mut reader = OptionReader::new(cursor, &["description", "owner", "tile", "lateness"], stated, name.span);
        options = FeatureViewOptions {
            description: reader.text("description").map(|text| text.value),
            owner: reader.text("owner").map(|text| text.value),
            tile: reader.duration("tile", 1),
            lateness: reader.duration("lateness", 0),
        };
        reader.finish();
    }
    cursor.expect_word("AS")?;
    let parsed = cursor.query()?;
    let column_docs = column_docs(cursor.file, cursor.tokens.get(parsed.start..).unwrap_or_default(), &parsed.query);
    let file = Arc::clone(cursor.file);
    Ok(FeatureViewDef { name, file, span, doc, options, query: parsed.query, query_span: parsed.span, column_docs })
}

fn feature_service(cursor: &mut Cursor, start: Span) -> Parsed<FeatureServiceDef> {
    let Head { name, span, doc } = head(cursor, start)?;
    let signature = signature(cursor)?;
    let mut options = FeatureServiceOptions::default();
    if cursor.take_words(&["WITH"]) {
        let stated = parse_options(cursor)?;
        let mut reader = OptionReader::new(cursor, &["description", "owner"], stated, name.span);
        options = FeatureServiceOptions {
            description: reader.text("description").map(|text| text.value),
            owner: reader.text("owner").map(|text| text.value),
        };
        reader.finish();
    }
    cursor.expect_word("AS")?;
    let parsed = cursor.query()?;
    let column_docs = column_docs(cursor.file, cursor.tokens.get(parsed.start..).unwrap_or_default(), &parsed.query);
    let file = Arc::clone(cursor.file);
    let signature = signature.ok_or(Reported)?;
    Ok(FeatureServiceDef {
        name,
        file,
        span,
        doc,
        signature,
        options,
        query: parsed.query,
        query_span: parsed.span,
        column_docs,
    })
}

fn training_set(cursor: &mut Cursor, start: Span) -> Parsed<TrainingSetDef> {
    let Head { name, span, doc } = head(cursor, start)?;
    cursor.expect_word("WITH")?;
    let stated = parse_options(cursor)?;
    let mut reader = OptionReader::new(cursor, &["service", "timestamp", "description", "owner"], stated, name.span);
    let service = reader.required("service", "the feature service to evaluate: service = 'fraud_v1'");
    let timestamp =
        reader.required("timestamp", "the query's column with the instant to evaluate at: timestamp = 'label_time'");
    let description = reader.text("description").map(|text| text.value);
    let owner = reader.text("owner").map(|text| text.value);
    reader.finish();
    cursor.expect_word("AS")?;
    let parsed = cursor.query()?;
    let (service, timestamp) = service.zip(timestamp).ok_or(Reported)?;
    let options = TrainingSetOptions { service, timestamp, description, owner };
    Ok(TrainingSetDef {
        name,
        file: Arc::clone(cursor.file),
        span,
        doc,
        options,
        query: parsed.query,
        query_span: parsed.span,
    })
}

/// `(column TYPE, …)`. `None` if a column is wrong: a service isn't checked against half of its request.
fn signature(cursor: &mut Cursor) -> Parsed<Option<Vec<SignatureColumn>>> {
    if *cursor.peek() != Token::LParen {
        return Err(cursor.unexpected("the request's columns in parentheses: (user_id BIGINT, amount DOUBLE)"));
    }
    let open = cursor.peek_span();
    cursor.next();
    let mut columns: Vec<SignatureColumn> = Vec::new();
    let mut complete = true;
    if *cursor.peek() == Token::RParen {
        let error = cursor
            .error(open, "the signature has no columns")
            .expected("the request's columns: (user_id BIGINT, amount DOUBLE)");
        cursor.report(error.hint("state at least the keys by which the service looks up feature views"));
        complete = false;
    }
    while !cursor.take(&Token::RParen) {
        match signature_column(cursor) {
            Ok(column) if column.name.value == AS_OF => {
                let message = format!("`{AS_OF}` is taken: the instant that a request is answered for");
                let error = cursor.error(column.name.span, message).expected("another name");
                cursor.report(error.hint(format!("`request.{AS_OF}` has it without being declared")));
                complete = false;
            }
            Ok(column) => match columns.iter().find(|earlier| earlier.name.value == column.name.value) {
                Some(earlier) => {
                    let message = format!("column `{}` is stated twice", column.name.value);
                    let hint =
                        format!("it is already stated at {}:{}", earlier.name.span.line, earlier.name.span.column);
                    cursor.report(cursor.error(column.name.span, message).hint(hint));
                    complete = false;
                }
                None => columns.push(column),
            },
            Err(Reported) => {
                complete = false;
                cursor.skip_item();
            }
        }
        if !cursor.take(&Token::Comma) && *cursor.peek() != Token::RParen {
            // Only after an error, where the list isn't closed.
            return Err(Reported);
        }
    }
    Ok(complete.then_some(columns))
}

fn signature_column(cursor: &mut Cursor) -> Parsed<SignatureColumn> {
    let name = cursor.column_name()?;
    if matches!(cursor.peek(), Token::Comma | Token::RParen) {
        return Err(
            cursor.unexpected(&format!("the type of `{}`: BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, …", name.value))
        );
    }
    let type_span = cursor.peek_span();
    let data_type = cursor.data_type()?;
    if cursor.at_word("NOT") || cursor.at_word("NULL") || cursor.at_word("DEFAULT") {
        let error = cursor
            .unexpected_next("`,` or `)`")
            .hint("a request's column is a name and a type; its value may always be NULL");
        cursor.report(error);
        return Err(Reported);
    }
    if !matches!(cursor.peek(), Token::Comma | Token::RParen) {
        return Err(cursor.unexpected("`,` or `)`"));
    }
    let span = name.span.to(type_span);
    Ok(SignatureColumn { name, data_type, span })
}

/// The definition's name, after `CREATE` and its kind.
fn head(cursor: &mut Cursor, start: Span) -> Parsed<Head> {
    let place = cursor.peek_span();
    if cursor.take_words(&["IF", "NOT", "EXISTS"]) {
        let error = cursor.error(place, "a definition is unconditional").expected("its name");
        cursor.report(error.hint("leave out IF NOT EXISTS: the files say what there is"));
    }
    if ["AS", "WITH", "SELECT"].iter().any(|word| cursor.at_word(word)) || !matches!(cursor.peek(), Token::Word(_)) {
        return Err(cursor.unexpected("a name"));
    }
    let name = cursor.column_name()?;
    cursor.name = Some(name.value.clone());
    if *cursor.peek() == Token::Period {
        let error = cursor
            .unexpected_next("a name of one part")
            .hint("definitions have no schema or catalogue before their name");
        cursor.report(error);
        return Err(Reported);
    }
    if let Some(wrong) = wrong_name(cursor, &name) {
        cursor.report(wrong);
    }
    let line = cursor.file.line(start.line).unwrap_or_default();
    let end = u32::try_from(line.trim_end().chars().count()).unwrap_or(u32::MAX).saturating_add(1);
    let span = Span::new(start.line, start.column, end.saturating_sub(start.column));
    Ok(Head { name, span, doc: statement_doc(cursor.file, cursor.tokens) })
}

/// Names become parts of keys, paths, metrics and addresses.
fn wrong_name(cursor: &Cursor, name: &Name) -> Option<Diagnostic> {
    let text = &name.value;
    if text == REQUEST {
        let error = cursor.error(name.span, format!("the name `{REQUEST}` is taken")).expected("another name");
        return Some(error.hint("in a feature service, `request` is the rows that it is called with"));
    }
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if plain && text.len() <= LONGEST_NAME {
        return None;
    }
    let expected = format!("up to {LONGEST_NAME} letters, digits and `_`, and no digit first");
    Some(
        cursor
            .error(name.span, "this can't be a definition's name")
            .expected(expected)
            .hint("it becomes a part of keys, paths and addresses"),
    )
}

fn understood() -> String {
    format!("one of CREATE {}", KINDS.join(", CREATE "))
}

fn not_a_definition(cursor: &mut Cursor) -> Reported {
    let hint = if cursor.at_word("SELECT") || cursor.at_word("WITH") {
        Some("a query stands in a definition: CREATE VIEW name AS SELECT …".to_owned())
    } else {
        let Token::Word(word) = cursor.peek() else { return cursor.unexpected(&understood()) };
        nearest(&word.value, ["CREATE"]).map(|create| format!("did you mean `{create}`?"))
    };
    let error = cursor.unexpected_next(&understood()).maybe_hint(hint);
    cursor.report(error);
    Reported
}

/// After `CREATE`: something that there is no definition of.
fn unknown_kind(cursor: &mut Cursor) -> Reported {
    let mut words: Vec<String> = Vec::new();
    while let (Token::Word(word), true) = (cursor.peek_nth(words.len()), words.len() < 2) {
        words.push(word.value.to_uppercase());
    }
    let Some(first) = words.first() else { return cursor.unexpected(&understood()) };
    let phrase = words.join(" ");
    let found = nearest(&phrase, KINDS).or_else(|| nearest(first, KINDS));
    let hint = match first.as_str() {
        "TABLE" => Some("events are a CREATE SOURCE; a dimension table is CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION 'path'".to_owned()),
        "MATERIALIZED" | "TEMP" | "TEMPORARY" | "RECURSIVE" => Some("CREATE VIEW is a row-level query, CREATE FEATURE VIEW is kept fresh".to_owned()),
        "MODEL" => None,
        _ => found.map(|kind| format!("did you mean `CREATE {kind}`?")),
    };
    // One word says what it is, unless it's a half of one of ours.
    let shown = if found.is_some_and(|kind| kind.contains(' '))
        || ["FEATURE", "TRAINING", "MATERIALIZED"].contains(&first.as_str())
    {
        &phrase
    } else {
        first
    };
    let error = cursor
        .error(cursor.peek_span(), format!("`CREATE {shown}` isn't understood"))
        .expected(understood())
        .maybe_hint(hint);
    cursor.report(error);
    Reported
}

/// The tokens from `CREATE` on.
pub(super) fn without_leading_blanks(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    let start = tokens.iter().position(|token| !is_blank(token)).unwrap_or(tokens.len());
    tokens.get(start..).unwrap_or_default()
}
