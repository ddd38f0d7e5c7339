//! Where the values of a JSON text stand in it, which a parsed value no longer knows.
//!
//! Guarantee: for a text that parses, every value has its place; of one that doesn't, those before the fault may.

use std::collections::{HashMap, HashSet};

use crate::sql::Span;

/// Places by JSON pointer: `/fields/3/name`.
#[derive(Debug, Default)]
pub(super) struct Places {
    spans: HashMap<String, Span>,
    /// Keys that an object has more than once; JSON's parsers take the last.
    pub twice: Vec<(String, Span)>,
}

/// As deep as serde_json reads.
const DEEPEST: usize = 128;

impl Places {
    pub(super) fn of(text: &str) -> Places {
        let mut scanner = Scanner { rest: text.chars().peekable(), line: 1, column: 1, places: Places::default() };
        scanner.value("", 0);
        scanner.places
    }

    /// The place of a value, or of what holds it.
    pub(super) fn at(&self, pointer: &str) -> Span {
        let mut pointer = pointer;
        loop {
            match (self.spans.get(pointer), pointer.rsplit_once('/')) {
                (Some(span), _) => return *span,
                (None, Some((outer, _))) => pointer = outer,
                (None, None) => return Span::new(1, 1, 1),
            }
        }
    }
}

struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
    column: u32,
    places: Places,
}

impl Scanner<'_> {
    fn value(&mut self, pointer: &str, depth: usize) {
        self.blanks();
        let (line, column) = (self.line, self.column);
        let length = match self.rest.peek() {
            Some('"') => {
                self.string();
                if self.line == line { self.column - column } else { 1 }
            }
            Some('{' | '[') => 1,
            _ => {
                while self.rest.peek().is_some_and(|c| !",]} \t\r\n".contains(*c)) {
                    self.next();
                }
                self.column - column
            }
        };
        self.places.spans.insert(pointer.to_owned(), Span::new(line, column, length));
        match self.rest.peek() {
            Some('{') if length == 1 && depth < DEEPEST => self.object(pointer, depth),
            Some('[') if length == 1 && depth < DEEPEST => self.array(pointer, depth),
            _ => {}
        }
    }

    fn object(&mut self, pointer: &str, depth: usize) {
        self.next();
        let mut keys = HashSet::new();
        loop {
            self.blanks();
            if self.rest.peek() != Some(&'"') {
                break;
            }
            let (line, column) = (self.line, self.column);
            let key = self.string();
            let span = Span::new(line, column, self.column.saturating_sub(column));
            self.blanks();
            if self.next() != Some(':') {
                return;
            }
            self.value(&format!("{pointer}/{key}"), depth + 1);
            if !keys.insert(key.clone()) {
                self.places.twice.push((key, span));
            }
            self.blanks();
            if self.rest.peek() != Some(&',') {
                break;
            }
            self.next();
        }
        self.next();
    }

    fn array(&mut self, pointer: &str, depth: usize) {
        self.next();
        for index in 0.. {
            self.blanks();
            if matches!(self.rest.peek(), None | Some(']')) {
                break;
            }
            self.value(&format!("{pointer}/{index}"), depth + 1);
            self.blanks();
            if self.rest.peek() != Some(&',') {
                break;
            }
            self.next();
        }
        self.next();
    }

    /// The text between quotes, with escapes as they are written.
    fn string(&mut self) -> String {
        self.next();
        let mut text = String::new();
        while let Some(character) = self.next() {
            match character {
                '"' => break,
                '\\' => {
                    text.push('\\');
                    text.extend(self.next());
                }
                other => text.push(other),
            }
        }
        text
    }

    fn blanks(&mut self) {
        while self.rest.peek().is_some_and(|c| c.is_ascii_whitespace()) {
            self.next();
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        match next {
            Some('\n') => (self.line, self.column) = (self.line + 1, 1),
            Some(_) => self.column += 1,
            None => {}
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_place() {
        let text = "{\"a\": [1, {\"é\\\"\": \"ü\"},\n  true], \"b\":{}\t, \"a\": null}";
        let places = Places::of(text);
        assert_eq!(places.at(""), Span::new(1, 1, 1));
        assert_eq!(places.at("/a/0"), Span::new(1, 8, 1));
        assert_eq!(places.at("/a/1/é\\\""), Span::new(1, 19, 3));
        assert_eq!(places.at("/a/2"), Span::new(2, 3, 4));
        assert_eq!(places.at("/b"), Span::new(2, 14, 1));
        // The last of two counts, as for the parser.
        assert_eq!(places.at("/a"), Span::new(2, 24, 4));
        assert_eq!(places.at("/b/nothing/there"), places.at("/b"));
        assert_eq!(places.twice, [("a".to_owned(), Span::new(2, 19, 3))]);
    }

    #[test]
    fn no_text_is_too_odd() {
        let mut odd: Vec<String> =
            ["", "{", "[", "\"", "{\"a\"", "{\"a\":", "[1,,2]", "}", "{\"a\" 1}", "\\"].map(str::to_owned).to_vec();
        odd.push("[".repeat(100_000));
        for text in odd {
            Places::of(&text).at("/a/0");
        }
    }
}
