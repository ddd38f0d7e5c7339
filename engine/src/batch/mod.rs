//! The batch plan: features at past instants, from the archive.
//!
//! A service's plan runs over a spine in place of the request, and each join to a feature view becomes a
//! [`PointInTimeJoin`]: a logical node and a physical operator of ours in an otherwise ordinary DataFusion plan.
//! The operator runs the view's row stage and its kernel, the same code as the stream and the request plan.

mod join;
mod node;
mod operator;
mod session;
mod training;

pub use node::PointInTimeJoin;
pub use operator::PointInTimeExec;
pub use session::session;
pub use training::{EventTables, Spine, TrainingError, training_plan};
