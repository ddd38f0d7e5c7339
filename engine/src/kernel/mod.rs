//! The timeline kernel: the one place where events become values, online and offline.
//!
//! A [`Kernel`] is compiled from a [`TimelineSpec`](spec::TimelineSpec). It folds events into [`Piece`]s (the state of one entity key from
//! one source partition), merges pieces into a [`Timeline`], and evaluates a timeline at instants. The streaming
//! plan, a read and the point-in-time operator all go through it.
//!
//! # What it guarantees
//!
//! * **Pure.** No clock, no I/O, no randomness: the same events give the same bytes and the same bits.
//! * **State is a function of the set of events** of a key and partition, not of the batches they came in. What is
//!   trimmed depends only on the piece's own newest event: `cut = newest - (longest frame + lateness + ahead)`.
//! * **Exact or said.** A value equals the SQL over all events ever seen, or the status is
//!   [`Status::OutsideRetention`]. A read at now is always exact, as long as no event lies further ahead of now than `ahead`.
//! * **Typed folds are exactly mergeable** ([`fold`]): sums of doubles don't depend on order, chunks, tiles, partitions.
//! * **A fold needs little of a long timeline**: a piece knows from its head what each chunk covers, and
//!   [`Kernel::needs`] names those that some rows touch. In order, that is the newest one.
//! * **A fold in order is bytes to bytes**: [`Kernel::append`] makes the stored head longer, with what a fold would have
//!   written, and without decoding it. What changes more goes through [`Kernel::fold`].
//! * **Order** in a timeline is event time, then partition, then offset.
//! * An event id counts once per (event time, id): the first offset wins. Across partitions that holds while one of
//!   the two is still a row; two partitions that have both folded it into partial states count it twice.
//! * Input never panics it, stored bytes neither.

mod absorb;
mod append;
mod big;
mod chunk;
mod compile;
pub mod encoding;
mod error;
mod evaluate;
pub mod exact;
mod fold;
mod frame;
mod identity;
mod interval;
pub mod key;
mod needs;
mod piece;
mod prefix;
mod results;
mod rows;
mod slide;
pub mod spec;
mod tile;
mod timeline;
mod timelines;
mod walk;

#[cfg(test)]
mod tests;

pub use absorb::FoldCounts;
pub use append::Appended;
pub use compile::Kernel;
pub use encoding::PieceDelta;
pub use error::{EncodingError, KernelError};
pub use evaluate::{Evaluation, Status};
pub use key::{EntityKey, RowKeys, decode_keys, encode_keys, is_key_type};
pub use piece::Piece;
pub use rows::EventRows;
pub use spec::{Aggregate, Argument, Frame, Function, Interval, TimelineSpec};
pub use timeline::Timeline;
pub use timelines::{KeyedRows, Timelines};
pub use walk::{Question, Walk, WalkError};
