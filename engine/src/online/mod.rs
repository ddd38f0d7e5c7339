//! The online store: where timelines live.
//!
//! One trait, one conformance suite ([`conformance`]), and for now one implementation: [`EmbeddedStore`].
//! A store knows bytes, not features: a key's state is one [`StoredPiece`] per source partition, and a
//! piece is a small head and bounded chunks, so that a hot key's write does not grow with its window.
//!
//! # Guarantees
//!
//! * [`OnlineStore::write`] is atomic per piece and *fenced*: it takes effect only if the stored piece has
//!   absorbed exactly what the writer believes. A stale writer changes nothing and is told.
//! * A read sees, per piece, the state after some whole number of writes.
//! * Before [`OnlineStore::flush`] returns, everything written so far survives a crash. Without it a crash may
//!   lose the latest writes, never reorder them: the log is replayed from the last progress that was flushed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::database::OpenError;
use crate::kernel::EntityKey;

pub mod conformance;
mod embedded;

pub use embedded::EmbeddedStore;

/// A view's identity in a store: its name, readable, and the fingerprint of its compiled form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId {
    pub name: String,
    pub fingerprint: String,
}

/// One key's state from one source partition, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPiece {
    pub partition: i32,
    /// The last offset of the partition that this state contains.
    pub absorbed: i64,
    pub head: Bytes,
    /// Ascending by number.
    pub chunks: Vec<(u32, Bytes)>,
}

/// The next state of one piece, as a difference to what the writer believes is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceWrite {
    pub key: EntityKey,
    pub partition: i32,
    /// The last offset that the writer believes the stored piece has absorbed; `None` for a piece that does not exist.
    pub expected: Option<i64>,
    /// The last offset that the new state contains; never below `expected`.
    pub absorbed: i64,
    pub head: Bytes,
    /// Added, or in place of the chunk with the same number.
    pub chunks: Vec<(u32, Bytes)>,
    /// Removed if they are there; before `chunks` are added.
    pub removed: Vec<u32>,
}

/// What became of a [`PieceWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    Written,
    /// Nothing changed: the stored piece has absorbed this, not what the writer believed (or would go back).
    Fenced {
        holds: Option<i64>,
    },
}

/// The store failed (not a fenced write, which is an outcome).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("online store {path}: {what}: {cause}")]
    Storage { path: PathBuf, what: &'static str, cause: String },
    #[error("online store {path}: view {view}, key \"{key}\", partition {partition}: {cause}; the file is damaged")]
    Damaged { path: PathBuf, view: String, key: String, partition: i32, cause: String },
}

/// Where timelines live. See the module's guarantees.
#[async_trait]
pub trait OnlineStore: Debug + Send + Sync {
    /// The pieces of each key, in the keys' order, each key's ascending by partition; none for a key never written.
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError>;

    /// Writes pieces; one outcome each, in order. A fenced piece does not touch the others.
    async fn write(&self, view: &ViewId, writes: Vec<PieceWrite>) -> Result<Vec<WriteOutcome>, StoreError>;

    /// Offset after the last event that the view has absorbed from each partition of its source.
    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError>;

    /// Remembers progress; durable, like the writes before it, after the next [`OnlineStore::flush`].
    async fn set_progress(&self, view: &ViewId, partition: i32, next_offset: i64) -> Result<(), StoreError>;

    /// Makes everything written so far durable.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Up to `limit` keys of a view after the given one, ascending by their bytes: for status, tests and clean-up.
    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError>;

    /// Every view that was written to or has progress.
    async fn views(&self) -> Result<Vec<ViewId>, StoreError>;

    /// Forgets a view: its pieces and its progress.
    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError>;
}
