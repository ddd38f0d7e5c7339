//! The streaming engine: source events into online state and the archive, with an exactly-once effect.
//!
//! ```text
//! EventSource ─► row stage ─► fold into pieces ─► online store ─┐
//!      │                             ▲                          ├─► commit the offset
//!      └────────► archive, dead letters ────────────────────────┘
//!                    └─► views that lack it
//! ```
//!
//! # Guarantee
//!
//! * A stored piece names the last offset it has absorbed; events at or below it are skipped.
//! * A piece is written whole and fenced, never incremented in place.
//! * An offset is committed only when its events are durable online *and* in the archive.
//! * A partition has one owner. One that doesn't know yet that it has lost the partition is fenced by the store and by
//!   the archive; one whose store was restarted or emptied is told before it writes on top of the gap. Either
//!   begins again from what is stored.
//!
//! So a crash anywhere replays a little and changes nothing.

mod absorb;
mod by_key;
mod cache;
mod catch_up;
mod commit;
mod error;
mod events;
mod fill;
mod fold;
mod group;
mod horizon;
mod known;
mod load;
mod others;
mod owned;
mod past;
mod progress;
mod share;
mod worker;

pub use absorb::VIEWS_AT_ONCE;
pub use error::StreamError;
pub use fill::{Done, FillConfig, Pause, Reached, pause};
pub use fold::Folded;
pub use load::Load;
pub use past::Past;
pub use progress::{Progress, ViewProgress};
pub use worker::{Summary, Until, Worker, WorkerConfig};
