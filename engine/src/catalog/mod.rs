//! What the definitions name: sources and tables with their columns and types.
//!
//! The catalogue resolves everything that stands outside the SQL: Avro contracts, files, columns. It knows nothing of
//! queries; `plan` compiles those over it.

use std::sync::Arc;

use crate::source::files::Format;
use crate::sql::{Diagnostic, FileFormat, SourceFile, Span};

mod source;
mod table;
mod types;

pub use source::{Histories, Source, resolve_path};
pub use table::{History, Table, TableError, table_columns};
pub use types::sql_type;

/// A stated format, as the reader of files knows it.
pub fn read_as(format: FileFormat) -> Format {
    match format {
        FileFormat::Parquet => Format::Parquet,
        FileFormat::Csv => Format::Csv,
        FileFormat::Ndjson => Format::NdJson,
        FileFormat::Avro => Format::Avro,
    }
}

/// An error that says "what; expected this; hint: that" in one line, as a diagnostic.
pub fn diagnostic(file: &Arc<SourceFile>, span: Span, error: &str) -> Diagnostic {
    let (text, hint) = error.split_once("; hint: ").map_or((error, None), |(text, hint)| (text, Some(hint.to_owned())));
    let (message, expected) = text.split_once("; expected ").map_or((text, None), |(text, e)| (text, Some(e)));
    let diagnostic = Diagnostic::new(file, span, message).maybe_hint(hint);
    match expected {
        Some(expected) => diagnostic.expected(expected),
        None => diagnostic,
    }
}
