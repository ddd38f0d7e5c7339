//! Training sets: a spine, a feature service evaluated as of each row's instant, one file or a partitioned folder.
//!
//! Snapshots ([`backfill`]): a view's values for every entity at the end of each date.
//!
//! [`build`] is thin: the engine plans and computes (`tidemark_engine::batch`), this crate finds the spine, the events
//! and the place for the answer. Guarantees: the set has one row for each row of the spine, in the spine's order
//! (in a folder: in each of its files); it appears under its name only when it is whole; its metadata says what it was made from.

mod backfill;
mod build;
mod diff;
mod encoding;
mod error;
mod folder;
mod output;
mod side;
mod spine;

pub use backfill::{Backfill, Made, Step, backfill, view};
pub use build::{Options, Request, Summary, build, service};
pub use diff::{Difference, diff};
pub use error::Error;
pub use folder::Part;
pub use output::{Format, Metadata, ParquetFile};

/// What this crate's fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
