//! A file's tokens, split into statements, so that one bad statement doesn't hide the next.
//!
//! A statement ends with its `;`. Where that is forgotten, a `CREATE` at the start of a line begins the next
//! statement all the same. Comments and blanks stay in the tokens: documentation is read from them.

use std::sync::Arc;

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{self, Location, Token, TokenWithSpan, Tokenizer},
};

use super::diagnostic::{Diagnostic, SourceFile, Span};

/// DataFusion's default.
pub(super) const DIALECT: GenericDialect = GenericDialect {};

/// The file's statements, each with its `;` (the last may have none), and what can't be read as tokens at all.
/// The statement that such an error is in is the last one, and marked as cut off.
pub(super) fn statements(file: &Arc<SourceFile>) -> (Vec<Statement>, Vec<Diagnostic>) {
    let mut tokens = Vec::new();
    let read = Tokenizer::new(&DIALECT, &file.text).tokenize_with_location_into_buf(&mut tokens);
    let mut diagnostics = Vec::new();
    if let Err(error) = &read {
        let start = tokens.last().map_or(Location::new(1, 1), |token: &TokenWithSpan| token.span.end);
        diagnostics.push(unreadable(file, start, &error.message, &tokens));
    }
    let mut statements = Vec::new();
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        let (end, forgotten) = statement_end(file, rest);
        let (statement, after) = rest.split_at(end);
        if forgotten && let Some(last) = statement.last() {
            let place = file.span(last.span);
            let end = Span::new(place.line, place.column + place.length - 1, 1);
            diagnostics.push(
                Diagnostic::new(file, end, "a statement isn't ended before the next `CREATE`")
                    .expected("`;` after this"),
            );
        }
        statements.push(Statement { tokens: statement.to_vec(), cut_off: false });
        rest = after;
    }
    if read.is_err() {
        match statements
            .last_mut()
            .filter(|last| last.tokens.last().is_none_or(|token| token.token != Token::SemiColon))
        {
            Some(last) => last.cut_off = true,
            None => statements.push(Statement { tokens: Vec::new(), cut_off: true }),
        }
    }
    (statements, diagnostics)
}

/// One statement's tokens, blanks and comments before it included.
#[derive(Debug)]
pub(super) struct Statement {
    pub tokens: Vec<TokenWithSpan>,
    /// The file can't be read past these tokens; that is already reported.
    pub cut_off: bool,
}

/// An unquoted word, in whatever case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

pub(super) fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_))
}

/// Whether nothing but blanks stands before the place on its line.
pub(super) fn starts_line(file: &SourceFile, place: Location) -> bool {
    let before = usize::try_from(place.column).unwrap_or(usize::MAX).saturating_sub(1);
    let line = u32::try_from(place.line).ok().and_then(|line| file.line(line)).unwrap_or_default();
    line.chars().take(before).all(char::is_whitespace)
}

/// A string that goes over several lines before `place`: the usual cause of nonsense after a forgotten quote.
pub(super) fn unclosed_quote_hint(tokens: &[TokenWithSpan], place: Location) -> Option<String> {
    let over_lines = |span: tokenizer::Span| span.start.line < span.end.line;
    let string = tokens.iter().find(|token| {
        matches!(token.token, Token::SingleQuotedString(_)) && token.span.start < place && over_lines(token.span)
    })?;
    let (start, end) = (string.span.start, string.span.end);
    Some(format!(
        "the string that starts at {}:{} goes on to line {}: is its closing quote missing?",
        start.line, start.column, end.line
    ))
}

/// How many tokens the first statement has, and whether its `;` was forgotten.
fn statement_end(file: &SourceFile, tokens: &[TokenWithSpan]) -> (usize, bool) {
    let mut last_seen = None;
    for (index, token) in tokens.iter().enumerate() {
        if token.token == Token::SemiColon {
            return (index + 1, false);
        }
        if let Some(last) = last_seen
            && begins_definition(file, &tokens[index..])
        {
            return (last + 1, true);
        }
        if !is_blank(token) {
            last_seen = Some(index);
        }
    }
    (tokens.len(), false)
}

fn begins_definition(file: &SourceFile, tokens: &[TokenWithSpan]) -> bool {
    const KINDS: [&str; 9] = ["SOURCE", "EXTERNAL", "UNBOUNDED", "VIEW", "FEATURE", "TRAINING", "MODEL", "TABLE", "OR"];
    let mut words = tokens.iter().filter(|token| !is_blank(token));
    let create = tokens.first().filter(|token| {
        matches!(&token.token, Token::Word(word) if word.keyword == Keyword::CREATE)
            && starts_line(file, token.span.start)
    });
    create.is_some() && words.nth(1).is_some_and(|next| KINDS.iter().any(|kind| is_word(&next.token, kind)))
}

fn unreadable(file: &Arc<SourceFile>, start: Location, message: &str, tokens: &[TokenWithSpan]) -> Diagnostic {
    let to_line_end = tokenizer::Span::new(start, Location::new(start.line + 1, 1));
    let what = if message.starts_with("Unterminated string literal") {
        "a string is never closed".to_owned()
    } else if message.contains("comment") {
        "a comment is never closed".to_owned()
    } else {
        format!("the text can't be read: {message}")
    };
    let current = tokens.rsplit(|token| token.token == Token::SemiColon).next().unwrap_or_default();
    let diagnostic = Diagnostic::new(file, file.span(to_line_end), what);
    let diagnostic = match message {
        text if text.starts_with("Unterminated string literal") => diagnostic.expected("a closing `'`"),
        text if text.contains("comment") => diagnostic.expected("a closing `*/`"),
        _ => diagnostic,
    };
    diagnostic.maybe_hint(unclosed_quote_hint(current, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (Vec<String>, Vec<String>) {
        let (statements, diagnostics) = statements(&SourceFile::new("a.sql", text));
        let texts = statements.iter().map(|statement| {
            let text: String = statement.tokens.iter().map(|token| token.token.to_string()).collect();
            format!("{}{}", text.trim(), if statement.cut_off { " (cut off)" } else { "" }).trim().to_owned()
        });
        let errors =
            diagnostics.iter().map(|d| format!("{}:{}+{} {}", d.span.line, d.span.column, d.span.length, d.message));
        (texts.collect(), errors.collect())
    }

    #[test]
    fn semicolons_in_strings_and_comments_end_nothing() {
        let (texts, errors) = split("SELECT ';' -- ; \n /* ; */ x;SELECT \";\"");
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[1].starts_with("SELECT \";\""));
        assert!(errors.is_empty());
    }

    #[test]
    fn a_forgotten_semicolon_is_reported_and_costs_nothing_more() {
        let (texts, errors) = split("CREATE SOURCE a WITH (x = 'y')\n\n-- the view\nCREATE VIEW b AS SELECT 1;");
        assert_eq!(texts.len(), 2);
        assert!(texts[1].starts_with("-- the view"), "{texts:?}");
        assert_eq!(errors, ["1:30+1 a statement isn't ended before the next `CREATE`"]);
        assert_eq!(split("SELECT create view FROM t;").0.len(), 1);
    }

    #[test]
    fn what_precedes_an_unclosed_string_is_still_read() {
        let (texts, errors) = split("SELECT 1;\nSELECT 'abc;\nx");
        assert_eq!(texts, ["SELECT 1;", "SELECT (cut off)"]);
        assert_eq!(errors, ["2:8+5 a string is never closed"]);
        assert_eq!(split("SELECT 1; 'x").0, ["SELECT 1;", "(cut off)"]);
        assert_eq!(split("'x").0, ["(cut off)"]);
        assert_eq!(split("x /* y").1, ["1:3+4 a comment is never closed"]);
        assert_eq!(split(""), (vec![], vec![]));
    }
}
