//! The streaming engine: source events into online state and the archive, with an exactly-once effect.
//!
//! ```text
//! EventSource ─► row stage ─► fold into pieces ─► online store ─┐
//!      │                                                        ├─► commit the offset
//!      └────────► archive, dead letters ────────────────────────┘
//! ```
//!
//! # Guarantee
//!
//! * A stored piece names the last offset it has absorbed; events at or below it are skipped.
//! * A piece is written whole and fenced, never incremented in place.
//! * An offset is committed only when its events are durable online *and* in the archive.
//!
//! So a crash anywhere replays a little and changes nothing. The files of one commit are named by its first event, and
//! a replay starts at that same event, so it overwrites them.

mod archived;
mod cache;
mod error;
mod events;
mod fold;
mod progress;
mod worker;

pub use archived::Archived;
pub use error::StreamError;
pub use progress::{Progress, ViewProgress};
pub use worker::{Summary, Until, Worker, WorkerConfig};
