//! What the definitions name: sources and tables with their columns and types.
//!
//! The catalogue resolves everything that stands outside the SQL: Avro contracts, files, columns. It knows nothing of
//! queries; `plan` compiles those over it.

mod source;
mod table;

pub use source::{Source, resolve_path};
pub use table::{Table, TableError};
