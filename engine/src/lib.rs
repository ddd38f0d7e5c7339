//! Tidemark's engine: SQL feature definitions compiled into three plans over one kernel.
//!
//! ```text
//! sql ─► catalog ─► plan ─► kernel ─► { stream, batch, request }      edges: source, online, offline
//! ```
//!
//! `sql` reads definition files; `catalog` resolves what they name; `plan` compiles the queries; `kernel` is the pure
//! function from a timeline and an instant to values; `stream` keeps timelines fresh, `request` reads them, `batch`
//! computes the same values over the archive. The edges do I/O. ARCHITECTURE.md says which may know which.

pub mod batch;
mod buckets;
pub mod catalog;
mod database;
pub mod explain;
pub mod kernel;
pub mod metrics;
pub mod offline;
pub mod online;
pub mod plan;
pub mod platform;
pub mod request;
pub mod source;
pub mod sql;
pub mod stream;
