//! Walks one statement's tokens and collects its errors: what the grammar of every statement shares.

use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::{
    ast::{DataType, Query, Visit, Visitor},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};

use super::asof::resolve_asof_joins;
use super::ast::Name;
use super::diagnostic::{Diagnostic, SourceFile, Span};
use super::errors::{parser_error, unexpected};
use super::suggest::did_you_mean;
use super::tokens::{DIALECT, is_blank, is_word};
use super::windows::resolve_windows;

pub(super) struct Cursor<'a> {
    pub file: &'a Arc<SourceFile>,
    pub tokens: &'a [TokenWithSpan],
    /// The definition's name, once read.
    pub name: Option<String>,
    parser: Parser<'static>,
    diagnostics: Vec<Diagnostic>,
}

/// Reading can't go on here; why is already among the cursor's errors.
#[derive(Debug)]
pub(super) struct Reported;

pub(super) type Parsed<T> = Result<T, Reported>;

/// A query, its first line, and where its tokens begin among the statement's.
pub(super) struct ParsedQuery {
    pub query: Box<Query>,
    pub span: Span,
    pub start: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a Arc<SourceFile>, tokens: &'a [TokenWithSpan]) -> Self {
        let parser = Parser::new(&DIALECT).with_tokens_with_locations(with_plain_window_names(tokens));
        Self { file, tokens, name: None, parser, diagnostics: Vec::new() }
    }

    /// The errors, each with the definition's name.
    pub fn finish(self) -> Vec<Diagnostic> {
        let Self { diagnostics, name, .. } = self;
        diagnostics
            .into_iter()
            .map(|mut diagnostic| {
                diagnostic.definition = diagnostic.definition.or_else(|| name.clone());
                diagnostic
            })
            .collect()
    }

    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.file, span, message)
    }

    /// Reports the next token as not what is expected.
    pub fn unexpected(&mut self, expected: &str) -> Reported {
        let diagnostic = self.unexpected_next(expected);
        self.report(diagnostic);
        Reported
    }

    pub fn unexpected_next(&self, expected: &str) -> Diagnostic {
        unexpected(self.file, self.tokens, self.parser.peek_token_ref(), expected)
    }

    pub fn peek(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    pub fn peek_nth(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    pub fn peek_span(&self) -> Span {
        self.file.span(self.parser.peek_token_ref().span)
    }

    pub fn next(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    pub fn at_end(&self) -> bool {
        matches!(self.peek(), Token::SemiColon | Token::EOF)
    }

    pub fn at_word(&self, word: &str) -> bool {
        is_word(self.peek(), word)
    }

    /// Takes these words if they stand here.
    pub fn take_words(&mut self, words: &[&str]) -> bool {
        let here = words.iter().enumerate().all(|(n, word)| is_word(self.peek_nth(n), word));
        if here {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        here
    }

    pub fn take(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect(&mut self, token: &Token) -> Parsed<()> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    pub fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_words(&[word]) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    pub fn expect_end(&mut self) -> Parsed<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected("the end of the statement: `;`")) }
    }

    /// A column's name.
    pub fn column_name(&mut self) -> Parsed<Name> {
        let Token::Word(word) = self.peek() else { return Err(self.unexpected("a column name")) };
        let value = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_ascii_lowercase() };
        let span = self.file.span(self.next().span);
        Ok(Name { value, span })
    }

    /// A type; one that SQL doesn't know is reported and still returned.
    pub fn data_type(&mut self) -> Parsed<DataType> {
        let span = self.peek_span();
        let data_type = self.parser.parse_data_type().map_err(|error| self.parser_error(&error))?;
        if let Some(diagnostic) = unknown_type(self.file, &data_type, span) {
            self.report(diagnostic);
        }
        Ok(data_type)
    }

    /// Skips to the next `,` or `)` of this list, or to where the list can't go on.
    pub fn skip_item(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Token::SemiColon | Token::EOF => return,
                Token::Comma | Token::RParen if depth == 0 => return,
                token if depth == 0 && is_word(token, "AS") => return,
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            self.parser.advance_token();
        }
    }

    /// The query that the rest of the statement is, its windows and ASOF JOINs resolved.
    pub fn query(&mut self) -> Parsed<ParsedQuery> {
        const STARTS: [&str; 5] = ["SELECT", "WITH", "VALUES", "FROM", "TABLE"];
        let start = self.parser.index();
        if !STARTS.iter().any(|word| self.at_word(word)) && *self.peek() != Token::LParen {
            return Err(self.unexpected("a query: SELECT …, or WITH … SELECT …"));
        }
        let first = self.peek_span();
        let mut query = self.parser.parse_query().map_err(|error| self.parser_error(&error))?;
        if !self.at_end() {
            return Err(self.unexpected("a comma, an operator, the query's next clause, or its end: `;`"));
        }
        let span = first.to(self.last_on_line(start..self.parser.index(), first));
        if let Some(what) = not_plain(&query) {
            self.report(
                self.error(span, format!("{what} has no place in a definition")).expected("a query that only reads"),
            );
            return Err(Reported);
        }
        let mut errors = resolve_windows(&mut query, self.file);
        errors.extend(resolve_asof_joins(&mut query, self.file));
        let resolved = errors.is_empty();
        self.diagnostics.extend(errors);
        if resolved { Ok(ParsedQuery { query, span, start }) } else { Err(Reported) }
    }

    fn parser_error(&mut self, error: &ParserError) -> Reported {
        let diagnostic = parser_error(self.file, self.tokens, error);
        self.report(diagnostic);
        Reported
    }

    fn last_on_line(&self, range: Range<usize>, first: Span) -> Span {
        let tokens = self.tokens.get(range).unwrap_or_default();
        let places = tokens.iter().filter(|token| !is_blank(token)).map(|token| self.file.span(token.span));
        places.rev().find(|place| place.line == first.line).unwrap_or(first)
    }
}

/// sqlparser takes no keyword for a window's name in `OVER (hour ROWS …)`, so that the `hour` of our own examples
/// would not do. Where only a window's name or one of its clauses can stand, a word loses its keyword.
fn with_plain_window_names(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    const CLAUSES: [&str; 5] = ["PARTITION", "ORDER", "ROWS", "RANGE", "GROUPS"];
    const QUERIES: [&str; 8] = ["SELECT", "WITH", "VALUES", "FROM", "TABLE", "INSERT", "UPDATE", "DELETE"];
    let mut plain = tokens.to_vec();
    let mut before: [Option<usize>; 2] = [None, None];
    for index in 0..tokens.len() {
        let Some(token) = tokens.get(index).filter(|token| !is_blank(token)) else { continue };
        let at = |place: Option<usize>| place.and_then(|place| tokens.get(place)).map(|token| &token.token);
        let opened = at(before[1]) == Some(&Token::LParen);
        let over = at(before[0]).is_some_and(|word| is_word(word, "OVER"));
        let defined = at(before[0]).is_some_and(|word| is_word(word, "AS"));
        let other = |words: &[&str]| !words.iter().any(|word| is_word(&token.token, word));
        if opened
            && ((over && other(&CLAUSES)) || (defined && other(&CLAUSES) && other(&QUERIES)))
            && let Some(Token::Word(word)) = plain.get_mut(index).map(|token| &mut token.token)
        {
            word.keyword = Keyword::NoKeyword;
        }
        before = [before[1], Some(index)];
    }
    plain
}

/// What in a query is more than reading.
fn not_plain(query: &Query) -> Option<&'static str> {
    struct Search;
    impl Visitor for Search {
        type Break = &'static str;

        fn pre_visit_statement(
            &mut self,
            _: &datafusion::sql::sqlparser::ast::Statement,
        ) -> std::ops::ControlFlow<&'static str> {
            std::ops::ControlFlow::Break("a statement that changes data")
        }

        fn pre_visit_query(&mut self, query: &Query) -> std::ops::ControlFlow<&'static str> {
            if query.locks.is_empty() {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break("FOR UPDATE or FOR SHARE")
            }
        }

        fn pre_visit_select(
            &mut self,
            select: &datafusion::sql::sqlparser::ast::Select,
        ) -> std::ops::ControlFlow<&'static str> {
            if select.into.is_none() {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break("SELECT INTO")
            }
        }
    }
    query.visit(&mut Search).break_value()
}

/// sqlparser takes any name for a type of one's own; there are none here.
pub(super) fn unknown_type(file: &Arc<SourceFile>, data_type: &DataType, span: Span) -> Option<Diagnostic> {
    const KNOWN: [&str; 17] = [
        "BIGINT",
        "INTEGER",
        "INT",
        "SMALLINT",
        "TINYINT",
        "DOUBLE",
        "REAL",
        "FLOAT",
        "DECIMAL",
        "NUMERIC",
        "BOOLEAN",
        "VARCHAR",
        "TEXT",
        "STRING",
        "DATE",
        "TIMESTAMP",
        "BYTEA",
    ];
    let DataType::Custom(name, _) = data_type else { return None };
    let name = name.to_string();
    Some(
        Diagnostic::new(file, span, format!("unknown type `{name}`"))
            .expected("a SQL type such as BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, DECIMAL(18, 2)")
            .maybe_hint(did_you_mean(&name, KNOWN)),
    )
}
