//! The batch plan: features at past instants, from the archive.
//!
//! A service's plan runs over a spine in place of the request. Each join to a feature view becomes a
//! [`PointInTimeJoin`], each projection and each lookup in a dimension table a [`ServiceStep`]: logical nodes and
//! physical operators of ours in an otherwise ordinary DataFusion plan. They run the view's row stage and its kernel
//! and the service's own steps, the same code as the stream and the request plan.

mod horizon;
mod join;
mod keys;
mod node;
mod operator;
mod order;
mod partition;
mod run;
mod session;
mod sides;
mod sieve;
mod snapshot;
mod spine;
mod step;
mod training;

pub use node::PointInTimeJoin;
pub use operator::PointInTimeExec;
pub use partition::PartitionBy;
pub use session::{session, session_in_order, session_within, spilled};
pub use snapshot::{Entities, SNAPSHOT_TIME, entities, snapshot_plan, snapshot_schema, snapshot_times};
pub use spine::{Cut, Spine, TrainingError};
pub use step::{ServiceStep, ServiceStepExec};
pub use training::{EventTables, training_plan};
