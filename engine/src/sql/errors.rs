//! The parser's errors as diagnostics: its "Expected: X, found: Y at Line: L, Column: C" becomes the place of Y.

use std::sync::Arc;

use datafusion::{
    common::DataFusionError,
    sql::sqlparser::{
        keywords::Keyword,
        parser::ParserError,
        tokenizer::{Location, Token, TokenWithSpan},
    },
};

use super::asof::{self, MATCH_CONDITION};
use super::diagnostic::{Diagnostic, SourceFile, Span};
use super::tokens::{is_blank, unclosed_quote_hint};

/// `found` stands where `expected` should. `tokens` are the statement's.
pub(super) fn unexpected(
    file: &Arc<SourceFile>,
    tokens: &[TokenWithSpan],
    found: &TokenWithSpan,
    expected: &str,
) -> Diagnostic {
    let (span, message) = match &found.token {
        Token::EOF => (end_of(file, tokens), "the statement ends too early".to_owned()),
        Token::SemiColon => (file.span(found.span), "the statement ends too early".to_owned()),
        token => (file.span(found.span), format!("unexpected `{}`", shortened(&token.to_string()))),
    };
    let place = Location::new(span.line.into(), span.column.into());
    Diagnostic::new(file, span, message).expected(expected).maybe_hint(unclosed_quote_hint(tokens, place))
}

/// Operators of one expression at most. Each is a level of the tree that planning walks by recursion, several times over.
const MOST_OPERATORS: usize = 500;

/// Where an expression grows out of hand, if one does.
pub(super) fn endless_expression(file: &Arc<SourceFile>, tokens: &[TokenWithSpan]) -> Option<Diagnostic> {
    let mut operators = 0;
    for token in tokens {
        match &token.token {
            Token::Comma | Token::SemiColon => operators = 0,
            Token::Word(word) => match word.keyword {
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::WINDOW | Keyword::ON => operators = 0,
                Keyword::AND | Keyword::OR => operators += 1,
                _ => {}
            },
            Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => operators += 1,
            Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => operators += 1,
            _ => {}
        }
        if operators > MOST_OPERATORS {
            let message = format!("the expression has more than {MOST_OPERATORS} operators");
            let error = Diagnostic::new(file, file.span(token.span), message);
            return Some(
                error.hint("name parts of it with `WITH name AS (…)` or `CREATE VIEW`, or use IN for many values"),
            );
        }
    }
    None
}

/// An error of sqlparser in the statement that has these tokens.
pub(super) fn parser_error(file: &Arc<SourceFile>, tokens: &[TokenWithSpan], error: &ParserError) -> Diagnostic {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
        ParserError::RecursionLimitExceeded => {
            let start =
                tokens.iter().find(|token| !is_blank(token)).map_or(Span::new(1, 1, 1), |token| file.span(token.span));
            return Diagnostic::new(file, start, "the statement is nested too deeply")
                .hint("name parts of it with `WITH name AS (…)` or `CREATE VIEW`");
        }
    };
    let (text, location) = split_location(text);
    let found = location.and_then(|place| tokens.iter().find(|token| token.span.start == place));
    if let Some((expected, _)) = text.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) {
        let end = TokenWithSpan::new_eof();
        // sqlparser names the word alone.
        let expected = if expected == MATCH_CONDITION { asof::EXPECTED.to_owned() } else { quoted(expected) };
        return unexpected(file, tokens, found.unwrap_or(&end), &expected);
    }
    let span = match (found, location) {
        (Some(token), _) => file.span(token.span),
        (None, Some(place)) => {
            Span::new(u32::try_from(place.line).unwrap_or(1), u32::try_from(place.column).unwrap_or(1), 1)
        }
        (None, None) => {
            tokens.iter().find(|token| !is_blank(token)).map_or(Span::new(1, 1, 1), |token| file.span(token.span))
        }
    };
    Diagnostic::new(file, span, text).maybe_hint(location.and_then(|place| unclosed_quote_hint(tokens, place)))
}

/// As [`parser_error`], for what DataFusion's own parser wraps around it.
pub(super) fn datafusion_error(
    file: &Arc<SourceFile>,
    tokens: &[TokenWithSpan],
    error: &DataFusionError,
) -> Diagnostic {
    match error {
        DataFusionError::SQL(error, _) => parser_error(file, tokens, error),
        DataFusionError::Diagnostic(_, error) | DataFusionError::Context(_, error) => {
            datafusion_error(file, tokens, error)
        }
        other => parser_error(file, tokens, &ParserError::ParserError(other.strip_backtrace())),
    }
}

/// Just behind the last token that isn't blank.
fn end_of(file: &SourceFile, tokens: &[TokenWithSpan]) -> Span {
    let last = tokens.iter().rev().find(|token| !is_blank(token) && token.token != Token::EOF);
    let end = last.map_or(Location::new(1, 1), |token| token.span.end);
    file.span(datafusion::sql::sqlparser::tokenizer::Span::new(end, end))
}

fn split_location(text: &str) -> (&str, Option<Location>) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location::new(line.parse().ok()?, column.parse().ok()?)))
    });
    parsed.map_or((text, None), |(message, place)| (message, Some(place)))
}

/// Tokens and keywords in backticks; descriptions as they are.
fn quoted(expected: &str) -> String {
    let literal = !expected.is_empty() && !expected.chars().any(char::is_lowercase) && !expected.contains(", ");
    if literal { format!("`{expected}`") } else { expected.to_owned() }
}

fn shortened(token: &str) -> String {
    let line = token.lines().next().unwrap_or_default();
    let cut = line.chars().count() > 40 || line.len() < token.len();
    let start: String = line.chars().take(40).collect();
    if cut { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tokens;
    use datafusion::sql::sqlparser::parser::Parser;

    fn error(sql: &str) -> String {
        let file = SourceFile::new("a.sql", sql);
        let (statements, _) = tokens::statements(&file);
        let tokens = &statements[0].tokens;
        let error = Parser::new(&tokens::DIALECT).with_tokens_with_locations(tokens.clone()).parse_query().unwrap_err();
        let diagnostic = parser_error(&file, tokens, &error);
        let Span { line, column, length } = diagnostic.span;
        format!("{line}:{column}+{length} {} [{}]", diagnostic.message, diagnostic.expected.unwrap_or_default())
    }

    #[test]
    fn the_found_token_is_the_place() {
        assert_eq!(error("SELECT a\n  FROM t WHERE )"), "2:16+1 unexpected `)` [an expression]");
        assert_eq!(error("SELECT SUM(x OVER w FROM t;"), "1:14+4 unexpected `OVER` [`)`]");
        assert_eq!(error("SELECT (1"), "1:10+1 the statement ends too early [`)`]");
        assert_eq!(error("SELECT (1 ;"), "1:11+1 the statement ends too early [`)`]");
        assert_eq!(error("SELECT CAST('a\nb' 1)"), "2:4+1 unexpected `1` [`AS`]");
        assert!(error(&format!("SELECT {}1", "(".repeat(200))).starts_with("1:1+6 the statement is nested too deeply"));
    }

    #[test]
    fn an_endless_expression_is_refused_where_it_grows_too_long() {
        let endless = |sql: String| {
            let file = SourceFile::new("a.sql", &sql);
            endless_expression(&file, &tokens::statements(&file).0[0].tokens).map(|error| error.span)
        };
        assert_eq!(endless(format!("SELECT a{}", "+1".repeat(500))), None);
        assert_eq!(endless(format!("SELECT a{}", "+1".repeat(501))), Some(Span::new(1, 1009, 1)));
        assert_eq!(endless(format!("SELECT {} FROM t", vec!["a + b"; 600].join(", "))), None);
        assert!(endless(format!("SELECT 1 FROM t WHERE a = 1{}", " OR a = 1".repeat(300))).is_some());
    }

    #[test]
    fn a_location_is_only_taken_from_the_end() {
        assert_eq!(split_location("x at Line: 3, Column: 4"), ("x", Some(Location::new(3, 4))));
        assert_eq!(split_location("x at Line: y"), ("x at Line: y", None));
        assert_eq!(quoted(")"), "`)`");
        assert_eq!(quoted("an expression"), "an expression");
        assert_eq!(shortened("ab\ncd"), "ab…");
    }
}
