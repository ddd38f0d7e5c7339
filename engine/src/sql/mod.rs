//! The definition language: `*.sql` files become parsed [`Definition`]s and [`Diagnostics`].
//!
//! Guarantees: no text makes it panic; a statement's errors don't hide another's; every error names a file, line and
//! column, what was expected, and where it can a hint; and every query that comes out has its named windows spelled out
//! ([`resolve_windows`]). Nothing here looks at contracts, tables or other definitions: that is the catalogue's part.
//! Only [`load`] reads files.

use std::sync::Arc;

mod asof;
mod ast;
mod cursor;
mod diagnostic;
mod docs;
mod duration;
mod errors;
mod load;
mod options;
mod source;
mod statement;
mod suggest;
mod table;
mod tokens;
mod windows;

pub use asof::{AS_OF, MATCH_CONDITION, resolve_asof_joins};
pub use ast::{
    Connector, Definition, FeatureServiceDef, FeatureServiceOptions, FeatureViewDef, FeatureViewOptions, FileFormat,
    HistoryDef, Name, OptionKind, OptionValue, SignatureColumn, SourceDef, SourceOptions, Spanned, Start, TableColumn,
    TableDef, TrainingSetDef, TrainingSetOptions, ViewDef,
};
pub use diagnostic::{Diagnostic, Diagnostics, SourceFile, Span};
pub use duration::{DurationError, parse_duration};
pub use load::{LoadError, distinct, load};
pub use source::DEFAULT_MAX_FUTURE;
pub use suggest::{did_you_mean, nearest};
pub use windows::resolve_windows;

/// What sqlparser may need for as many levels as it lets statements nest: some of its recursion takes more than the
/// rest of a thread's stack. Pages that aren't touched cost nothing.
const STACK: usize = 32 << 20;

/// Reads one file's definitions, in their order, and all of its errors.
///
/// A definition with errors comes out all the same if what it can't be without could be read; every error in it names
/// it, whether it came out or not.
pub fn parse_file(file: Arc<SourceFile>) -> (Vec<Definition>, Vec<Diagnostic>) {
    stacker::grow(STACK, || parse(&file))
}

fn parse(file: &Arc<SourceFile>) -> (Vec<Definition>, Vec<Diagnostic>) {
    let (statements, mut diagnostics) = tokens::statements(file);
    let mut definitions = Vec::new();
    for statement in &statements {
        if statement.cut_off {
            // Its end is missing: what the grammar says of it is an echo of that.
            let name = statement::defined_name(file, &statement.tokens);
            if let Some(unreadable) = diagnostics.last_mut().filter(|_| name.is_some()) {
                unreadable.definition = name;
            }
            continue;
        }
        if let Some(mut endless) = errors::endless_expression(file, &statement.tokens) {
            endless.definition = statement::defined_name(file, &statement.tokens);
            diagnostics.push(endless);
            continue;
        }
        let (definition, errors) = statement::parse_statement(file, &statement.tokens);
        definitions.extend(definition);
        diagnostics.extend(errors);
    }
    (definitions, diagnostics)
}

#[cfg(test)]
mod tests;
