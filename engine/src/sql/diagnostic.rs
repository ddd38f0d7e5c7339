//! Errors in definition files: where, what, what was expected, and a hint, rendered with the source line.
//!
//! Guarantees: a [`Diagnostic`] always names a file, a line and a column (1-based, in characters), and its
//! rendering points at exactly those characters, whatever tabs or line endings the file has.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer;
use serde::{Serialize, Serializer, ser::SerializeStruct};

/// One error in a definition file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: Arc<SourceFile>,
    pub span: Span,
    /// What is wrong, in one line.
    pub message: String,
    /// What would have been right here.
    pub expected: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The name of the definition that the error is in, where it could be read.
    pub definition: Option<String>,
}

/// A place in a definition file: 1-based line and column, and a length, both in characters. The length is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub length: u32,
}

/// A definition file's text, and its path as people are shown it: relative to the project folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

/// Errors of many files; printing sorts them by file and position and ends with a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostic {
    pub fn new(file: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self { file: Arc::clone(file), span, message: message.into(), expected: None, hint: None, definition: None }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As [`Diagnostic::hint`], where there may be nothing to hint at.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Names the definition that the error is in.
    pub fn definition(mut self, name: impl Into<String>) -> Self {
        self.definition = Some(name.into());
        self
    }
}

impl Span {
    pub fn new(line: u32, column: u32, length: u32) -> Self {
        Self { line: line.max(1), column: column.max(1), length: length.max(1) }
    }

    /// From the start of `self` to the end of `other` if both are on one line, else `self`.
    pub fn to(self, other: Span) -> Span {
        let end = other.column.saturating_add(other.length);
        if self.line == other.line && end > self.column {
            Span::new(self.line, self.column, end - self.column)
        } else {
            self
        }
    }
}

/// The parser's own span. One that goes over several lines keeps its first character only; with the file at hand,
/// [`SourceFile::span`] takes it to the end of its first line.
impl From<tokenizer::Span> for Span {
    fn from(span: tokenizer::Span) -> Self {
        let length =
            if span.start.line == span.end.line { span.end.column.saturating_sub(span.start.column) } else { 1 };
        Span::new(clamp(span.start.line), clamp(span.start.column), clamp(length))
    }
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into() })
    }

    /// The parser's span as a place in this file; one that goes over several lines ends with its first.
    pub fn span(&self, span: tokenizer::Span) -> Span {
        let place = Span::from(span);
        if span.start.line == span.end.line {
            return place;
        }
        let width = self.line(place.line).map_or(0, |line| clamp(line.chars().count() as u64));
        Span::new(place.line, place.column, (width + 1).saturating_sub(place.column))
    }

    /// The text of a line, without its ending.
    pub fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.text.split('\n').nth(index).map(|line| line.trim_end_matches('\r'))
    }
}

impl Diagnostics {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In file and position order.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.0.iter().collect();
        all.sort_by_key(|diagnostic| (&diagnostic.file.path, diagnostic.span));
        all
    }

    /// Whether an error is already reported in the definition called `name`: who doesn't find that name
    /// need not say so again.
    pub fn concern(&self, name: &str) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.definition.as_deref() == Some(name))
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<T: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: T) {
        self.0.extend(diagnostics);
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self(diagnostics)
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl std::error::Error for Diagnostic {}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, length } = self.span;
        let number = line.to_string();
        let gutter = " ".repeat(number.len() + 1);
        writeln!(f, "error: {}", self.message)?;
        write!(f, "{gutter}--> {}:{line}:{column}", self.file.path)?;
        if let Some(text) = self.file.line(line).filter(|_| !self.file.text.is_empty()).map(without_secrets) {
            let before = printable(text.chars().take(column as usize - 1));
            let marked = printable(text.chars().skip(column as usize - 1).take(length as usize));
            let rest = printable(text.chars().skip(column as usize - 1 + length as usize));
            writeln!(f, "\n{gutter} |")?;
            writeln!(f, " {number} | {}", format!("{before}{marked}{rest}").trim_end())?;
            let indent = " ".repeat(before.chars().count());
            write!(f, "{gutter} | {indent}{}", "^".repeat(marked.chars().count().max(1)))?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n{gutter} = expected: {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{gutter} = hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.sorted() {
            writeln!(f, "{diagnostic}\n")?;
        }
        let files = self.0.iter().map(|diagnostic| &diagnostic.file.path).collect::<BTreeSet<_>>().len();
        write!(f, "error: {} in {}", counted(self.0.len(), "error"), counted(files, "file"))
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostic", 8)?;
        object.serialize_field("file", &self.file.path)?;
        object.serialize_field("line", &self.span.line)?;
        object.serialize_field("column", &self.span.column)?;
        object.serialize_field("length", &self.span.length)?;
        object.serialize_field("definition", &self.definition)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("expected", &self.expected)?;
        object.serialize_field("hint", &self.hint)?;
        object.end()
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.sorted())
    }
}

/// A line of definitions, with what stands between quotes after a `password` or a `secret` hidden, sign for sign.
fn without_secrets(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let words = ["password", "secret"];
    let Some(word) = words.iter().filter_map(|word| lower.find(word)).min() else { return line.to_owned() };
    let (before, after) = line.split_at(word);
    let mut quoted = false;
    let hidden = after.chars().map(|sign| match sign {
        '\'' => {
            quoted = !quoted;
            sign
        }
        _ if quoted => '*',
        _ => sign,
    });
    before.chars().chain(hidden).collect()
}

/// A tab becomes four blanks and any other control character one, so that the caret stands under what it means
/// and a file can't drive the terminal.
fn printable(text: impl Iterator<Item = char>) -> String {
    text.fold(String::new(), |mut shown, character| {
        match character {
            '\t' => shown.push_str("    "),
            control if control.is_control() => shown.push(' '),
            other => shown.push(other),
        }
        shown
    })
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::tokenizer::Location;

    fn rendered(text: &str, span: Span) -> String {
        Diagnostic::new(&SourceFile::new("features/a.sql", text), span, "wrong").to_string()
    }

    #[test]
    fn points_at_the_characters_with_expected_and_hint() {
        let file = SourceFile::new(
            "features/sources/transactions.sql",
            "CREATE SOURCE t WITH (\n  timestmp = 'event_time'\n);",
        );
        let diagnostic = Diagnostic::new(&file, Span::new(2, 3, 8), "unknown option `timestmp`")
            .expected("one of schema, timestamp")
            .hint("did you mean `timestamp`?");
        let lines = [
            "error: unknown option `timestmp`",
            "  --> features/sources/transactions.sql:2:3",
            "   |",
            " 2 |   timestmp = 'event_time'",
            "   |   ^^^^^^^^",
            "   = expected: one of schema, timestamp",
            "   = hint: did you mean `timestamp`?",
        ];
        assert_eq!(diagnostic.to_string(), lines.join("\n"));
    }

    #[test]
    fn tabs_unicode_and_line_endings_keep_the_caret_in_place() {
        assert!(rendered("\tab\tcd\r\nx", Span::new(1, 5, 2)).ends_with(" 1 |     ab    cd\n   |           ^^"));
        assert!(rendered("-- åäö\r\n'ü' oops", Span::new(2, 5, 4)).ends_with(" 2 | 'ü' oops\n   |     ^^^^"));
        assert!(rendered("a\u{1b}[31mb", Span::new(1, 7, 1)).ends_with(" 1 | a [31mb\n   |       ^"));
    }

    #[test]
    fn a_line_is_shown_without_its_secrets() {
        let line = "schema = 'ä', kafka.SASL.password = 'it''s me', x = 1";
        let shown = rendered(line, Span::new(1, 49, 1));
        assert!(shown.contains("schema = 'ä', kafka.SASL.password = '**''****', x = 1"), "{shown}");
        assert!(shown.ends_with(&format!("{}^", " ".repeat(48))), "{shown}");
    }

    #[test]
    fn a_place_past_the_end_of_the_text_still_renders() {
        assert!(rendered("ab", Span::new(1, 3, 1)).ends_with(" 1 | ab\n   |   ^"));
        assert!(rendered("", Span::new(1, 1, 1)).ends_with("--> features/a.sql:1:1"));
        assert!(rendered("ab", Span::new(9, 1, 1)).ends_with("--> features/a.sql:9:1"));
        assert!(rendered("ab", Span::new(1, 90, 7)).contains(":1:90"));
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first_line() {
        let file = SourceFile::new("a.sql", "ab 'cd\r\nef'");
        let over = tokenizer::Span::new(Location::new(1, 4), Location::new(2, 4));
        assert_eq!(file.span(over), Span::new(1, 4, 3));
        assert_eq!(Span::from(over), Span::new(1, 4, 1));
        assert_eq!(Span::from(tokenizer::Span::new(Location::new(1, 1), Location::new(1, 3))), Span::new(1, 1, 2));
        assert_eq!(Span::from(tokenizer::Span::empty()), Span::new(1, 1, 1));
    }

    #[test]
    fn many_are_sorted_counted_and_become_json() {
        let (a, b) = (SourceFile::new("a.sql", "x\ny"), SourceFile::new("b.sql", "z"));
        let mut all = Diagnostics::new();
        all.push(Diagnostic::new(&b, Span::new(1, 1, 1), "third"));
        all.extend([
            Diagnostic::new(&a, Span::new(2, 1, 1), "second"),
            Diagnostic::new(&a, Span::new(1, 1, 1), "first").definition("v"),
        ]);
        let text = all.to_string();
        let places: Vec<_> =
            ["first", "second", "third", "error: 3 errors in 2 files"].iter().map(|part| text.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
        assert!(all.concern("v") && !all.concern("w"));
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({
                "file": "a.sql", "line": 1, "column": 1, "length": 1, "definition": "v",
                "message": "first", "expected": null, "hint": null,
            })
        );
    }
}
