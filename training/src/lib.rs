//! Training sets: a spine, a feature service evaluated as of each row's instant, one file.
//!
//! [`build`] is thin: the engine plans and computes (`tidemark_engine::batch`), this crate finds the spine, the events
//! and the place for the answer. Guarantees: the file has one row for each row of the spine, in the spine's order; it
//! appears under its name only when it is whole; its metadata says what it was made from.

mod build;
mod error;
mod output;
mod spine;

pub use build::{Options, Request, Summary, build, service};
pub use error::Error;
pub use output::{Format, ParquetFile};

/// What this crate's fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
