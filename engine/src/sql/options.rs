//! `WITH (key = value, …)`: read, then looked up by name and type. Whatever isn't looked up is an unknown option.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::ast::{Name, OptionKind, OptionValue, Spanned};
use super::cursor::{Cursor, Parsed};
use super::diagnostic::Span;
use super::duration::{self, parse_duration};
use super::suggest::{did_you_mean, nearest};
use super::tokens::is_word;

/// The options of a clause as they are stated.
pub(super) struct Options {
    /// In order, none twice.
    pub values: Vec<OptionValue>,
    /// Those whose value can't be read, which is reported.
    failed: Vec<String>,
}

impl From<Vec<OptionValue>> for Options {
    fn from(values: Vec<OptionValue>) -> Self {
        Self { values, failed: Vec::new() }
    }
}

/// Reads the options in parentheses that stand here.
pub(super) fn parse_options(cursor: &mut Cursor) -> Parsed<Options> {
    cursor.expect(&Token::LParen)?;
    let mut options: Vec<OptionValue> = Vec::new();
    let mut failed = Vec::new();
    while !cursor.take(&Token::RParen) {
        match option(cursor, &mut failed) {
            Ok(option) => match options.iter().find(|earlier| earlier.key.value == option.key.value) {
                Some(earlier) => {
                    let message = format!("option `{}` is stated twice", option.key.value);
                    let hint = format!("it is already stated at {}:{}", earlier.key.span.line, earlier.key.span.column);
                    cursor.report(cursor.error(option.key.span, message).hint(hint));
                }
                None => options.push(option),
            },
            Err(_) => cursor.skip_item(),
        }
        if cursor.take(&Token::Comma) || *cursor.peek() == Token::RParen {
            continue;
        }
        let next_option =
            matches!(cursor.peek(), Token::Word(_) | Token::SingleQuotedString(_)) && *cursor.peek_nth(1) == Token::Eq;
        let missing_comma = cursor
            .unexpected_next("`,` or `)`")
            .maybe_hint(next_option.then(|| "a comma is missing before it".to_owned()));
        cursor.report(missing_comma);
        if cursor.at_end() || cursor.at_word("AS") {
            break;
        }
        if !next_option {
            cursor.skip_item();
            cursor.take(&Token::Comma);
        }
    }
    Ok(Options { values: options, failed })
}

/// Looks options up by name and type.
pub(super) struct OptionReader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    known: &'static [&'static str],
    options: Vec<OptionValue>,
    failed: Vec<String>,
    /// Where a missing option is reported: the definition's name.
    at: Span,
}

impl<'c, 'a> OptionReader<'c, 'a> {
    /// `known` are the names to offer where an option isn't one.
    pub fn new(cursor: &'c mut Cursor<'a>, known: &'static [&'static str], options: Options, at: Span) -> Self {
        let Options { values, failed } = options;
        Self { cursor, known, options: values, failed, at }
    }

    /// Where the option is stated, if it is; before it is taken.
    pub fn stated(&self, key: &str) -> Option<Span> {
        self.options.iter().find(|option| option.key.value == key).map(|option| option.key.span)
    }

    /// Whether the option is stated, with a value that can be read or not; before it is taken.
    pub fn tried(&self, key: &str) -> bool {
        self.stated(key).is_some() || self.failed.iter().any(|failed| failed == key)
    }

    pub fn text(&mut self, key: &str) -> Option<Spanned<String>> {
        let option = self.take(key)?;
        if option.kind != OptionKind::String {
            let error = self.wrong(&option, format!("`{key}` isn't a string"), "a string in single quotes");
            self.cursor.report(error.hint(format!("write '{}'", option.value)));
            return None;
        }
        if option.value.trim().is_empty() {
            let error = self.wrong(&option, format!("`{key}` is empty"), "a text that isn't empty");
            self.cursor.report(error);
            return None;
        }
        Some(Spanned { value: option.value, span: option.value_span })
    }

    /// As [`Self::text`]; that it isn't stated is reported with `expected`.
    pub fn required(&mut self, key: &str, expected: &str) -> Option<Spanned<String>> {
        if self.tried(key) {
            return self.text(key);
        }
        if !self.misspelt(key) {
            let error = self.cursor.error(self.at, format!("option `{key}` is missing")).expected(expected);
            self.cursor.report(error);
        }
        None
    }

    /// Whether an option that isn't known will be reported with the hint that this one was meant.
    pub fn misspelt(&self, key: &str) -> bool {
        let meant = |option: &OptionValue| nearest(&option.key.value, self.known.iter().copied());
        self.options.iter().any(|option| !self.known.contains(&option.key.value.as_str()) && meant(option) == Some(key))
    }

    /// Microseconds, at least `least`.
    pub fn duration(&mut self, key: &str, least: i64) -> Option<Spanned<i64>> {
        let Spanned { value, span } = self.text(key)?;
        let error = match parse_duration(&value) {
            Ok(micros) if micros >= least => return Some(Spanned { value: micros, span }),
            Ok(_) => self.cursor.error(span, format!("`{key}` is too short")).expected("a duration of more than zero"),
            Err(error) => self.cursor.error(span, format!("`{key}`: {error}")).expected(duration::EXPECTED),
        };
        self.cursor.report(error);
        None
    }

    /// A whole number in the range.
    pub fn count(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<Spanned<u32>> {
        let option = self.take(key)?;
        let expected = format!("a whole number from {} to {}, without quotes", range.start(), range.end());
        match option.value.parse::<u32>() {
            Ok(value) if option.kind == OptionKind::Number && range.contains(&value) => {
                Some(Spanned { value, span: option.value_span })
            }
            _ => {
                let error = self.wrong(&option, format!("`{key}` isn't a whole number in its range"), &expected);
                self.cursor.report(error);
                None
            }
        }
    }

    /// One of some words, in whatever case.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&'static str, T)]) -> Option<Spanned<T>> {
        let Spanned { value, span } = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value)) {
            return Some(Spanned { value: *choice, span });
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let error = self
            .cursor
            .error(span, format!("`{key}` can't be `{value}`"))
            .expected(format!("one of '{}'", words.join("', '")))
            .maybe_hint(did_you_mean(&value, words));
        self.cursor.report(error);
        None
    }

    /// Every option below a prefix such as `kafka.`, whatever its type.
    pub fn below(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let (below, others) =
            std::mem::take(&mut self.options).into_iter().partition(|option| option.key.value.starts_with(prefix));
        self.options = others;
        let below: Vec<OptionValue> = below;
        below.into_iter().map(|option| (option.key.value[prefix.len()..].to_owned(), option.value)).collect()
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>, expected: impl Into<String>, hint: Option<String>) {
        let error = self.cursor.error(span, message).expected(expected).maybe_hint(hint);
        self.cursor.report(error);
    }

    /// Reports every option that nothing has looked up.
    pub fn finish(self) {
        for option in &self.options {
            let key = &option.key.value;
            let error = self
                .cursor
                .error(option.key.span, format!("unknown option `{key}`"))
                .expected(format!("one of {}", self.known.join(", ")))
                .maybe_hint(did_you_mean(key, self.known.iter().copied()));
            self.cursor.report(error);
        }
    }

    fn take(&mut self, key: &str) -> Option<OptionValue> {
        let index = self.options.iter().position(|option| option.key.value == key)?;
        Some(self.options.remove(index))
    }

    fn wrong(&self, option: &OptionValue, message: String, expected: &str) -> super::diagnostic::Diagnostic {
        self.cursor.error(option.value_span, message).expected(expected)
    }
}

fn option(cursor: &mut Cursor, failed: &mut Vec<String>) -> Parsed<OptionValue> {
    let key = key(cursor)?;
    value(cursor, key.clone()).inspect_err(|_| failed.push(key.value))
}

fn value(cursor: &mut Cursor, key: Name) -> Parsed<OptionValue> {
    if !cursor.take(&Token::Eq) {
        return Err(cursor.unexpected(&format!("`=` and the value of `{}`", key.value)));
    }
    let start = cursor.peek_span();
    let negative = *cursor.peek() == Token::Minus && matches!(cursor.peek_nth(1), Token::Number(..));
    if negative {
        cursor.next();
    }
    let (value, kind) = match cursor.peek().clone() {
        Token::SingleQuotedString(text) => (text, OptionKind::String),
        Token::Number(digits, _) => (format!("{}{digits}", if negative { "-" } else { "" }), OptionKind::Number),
        Token::Word(word)
            if word.quote_style.is_none() && (is_word(cursor.peek(), "true") || is_word(cursor.peek(), "false")) =>
        {
            (word.value.to_ascii_lowercase(), OptionKind::Bool)
        }
        other => {
            let hint = match other {
                Token::Word(word) => Some(format!("a string stands in single quotes: '{}'", word.value)),
                _ => None,
            };
            let error =
                cursor.unexpected_next("a value: a string in single quotes, a number, true or false").maybe_hint(hint);
            cursor.report(error);
            return Err(super::cursor::Reported);
        }
    };
    let value_span = start.to(cursor.peek_span());
    cursor.next();
    Ok(OptionValue { key, value, value_span, kind })
}

/// `schema`, `kafka.security.protocol` or a string.
fn key(cursor: &mut Cursor) -> Parsed<Name> {
    const EXPECTED: &str = "the name of an option";
    let span = cursor.peek_span();
    if let Token::SingleQuotedString(text) = cursor.peek() {
        let value = text.clone();
        cursor.next();
        return Ok(Name { value, span });
    }
    let mut name = Name { value: String::new(), span };
    loop {
        let Token::Word(word) = cursor.peek() else { return Err(cursor.unexpected(EXPECTED)) };
        let part = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_ascii_lowercase() };
        name.value.push_str(&part);
        name.span = name.span.to(cursor.peek_span());
        cursor.next();
        if !cursor.take(&Token::Period) {
            return Ok(name);
        }
        name.value.push('.');
    }
}
