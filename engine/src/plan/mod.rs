//! Queries compiled: feature views taken apart, services as pipelines, training sets as plans.
//!
//! DataFusion plans a definition's query, so that names, types, coercions and functions are its own; the logical
//! plan is then taken apart ([`view`]). What runs per row is a [`pipeline::Pipeline`]; what runs per key is the kernel.
//! Nothing here reads events or state.

mod asof;
mod compiler;
mod content;
pub mod failure;
mod fingerprint;
pub mod fit;
mod horizon;
pub mod join;
mod locate;
mod lookup;
pub mod pipeline;
pub mod planner;
mod problem;
mod project;
mod projection;
pub mod rows;
pub(crate) mod service;
mod translate;
mod view;
mod windows;
pub(crate) mod words;

use arrow::datatypes::{DataType, TimeUnit};

pub use content::{bind, provider};
pub use problem::Problem;
pub use project::{Project, ProjectError, SharedView, TrainingSet};
pub use service::{FeatureService, REQUEST};
pub use view::{FeatureView, ViewOptions};

/// The type of every instant: UTC, microseconds.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}
