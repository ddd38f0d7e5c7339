//! The online store: where timelines live.
//!
//! One trait, one conformance suite ([`conformance`]), two implementations: [`EmbeddedStore`] in one file, and
//! [`RedisStore`] for many processes.
//! A store knows bytes, not features: a key's state is one [`StoredPiece`] per source partition, and a
//! piece is a small head and bounded chunks, so that a hot key's write does not grow with its window.
//!
//! # Guarantees
//!
//! * [`OnlineStore::write`] is atomic per piece and *fenced*: it takes effect only if the stored piece has
//!   absorbed exactly what the writer believes. A stale writer changes nothing and is told.
//! * A read sees, per piece, the state after some whole number of writes.
//! * A crash of the store may lose the latest writes, never reorder them, and never keeps progress whose writes it lost:
//!   the source is replayed from the progress that is left. Before [`OnlineStore::flush`] returns, everything
//!   written so far is as durable as the store makes it.
//! * Progress is fenced too: it never goes back, and a writer that lost it (somebody emptied the store) is told.
//! * A writer writes in a [`Session`]. It ends when the store may have lost what it took; from then on it takes
//!   nothing more in that session (but for pieces that are [whole](PieceWrite::whole)), so that nothing is ever written on top of a gap.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::database::OpenError;
use crate::kernel::EntityKey;

pub mod conformance;
mod embedded;
mod redis;

pub use embedded::EmbeddedStore;
pub use redis::{RedisConfig, RedisStore};

/// What a writer may rely on the store to remember: see the module's guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Session(u64);

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
    /// The piece has every event that it should have up to `absorbed`, whatever is or was stored: nothing was read for it. So it may be
    /// taken also after the session has ended, where nothing is there. Only with `expected: None`.
    pub whole: bool,
    /// The key's state may be forgotten if nothing is written to it for so long.
    pub idle_after: Option<Duration>,
}

/// What a view takes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub keys: u64,
    /// Bytes of all its keys' state, as the store accounts for it; estimated from a sample where there are many.
    pub bytes: u64,
}

/// Partitions of views.
pub type Dropped = BTreeMap<ViewId, Believed>;
/// By partition, how far a view is believed to be.
pub type Believed = BTreeMap<i32, Option<i64>>;

/// What became of a [`PieceWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    Written,
    /// Nothing changed: the stored piece has absorbed this, not what the writer believed (or would go back). What stands in the way of a
    /// whole piece may not be said.
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
    #[error("online store {at}: {what}: {cause}")]
    Redis { at: String, what: &'static str, cause: String },
    #[error("online store {at}: it was restarted, and may have lost what it took last; going back to what it has")]
    SessionEnded { at: String },
    #[error("online store {at}: another process has just taken up view {view}; looking again")]
    TakenUp { at: String, view: String },
    #[error(
        "online store {path}: view {view}, key \"{key}\", partition {partition}: {cause}; what it holds is damaged"
    )]
    Damaged { path: PathBuf, view: String, key: String, partition: i32, cause: String },
}

/// Where timelines live. See the module's guarantees.
#[async_trait]
pub trait OnlineStore: Debug + Send + Sync {
    /// The pieces of each key, in the keys' order, each key's ascending by partition; none for a key never written.
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError>;

    /// What a writer begins with: of each key one partition's piece, with those of its chunks that are named and there; `None`
    /// where there is no such piece. Each is the state after some whole number of writes.
    async fn fetch(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError>;

    /// The session to write in. Whoever asks reads progress and pieces after that, not before.
    async fn session(&self) -> Result<Session, StoreError>;

    /// Writes pieces; one outcome each, in order. A fenced piece does not touch the others.
    async fn write(
        &self,
        session: Session,
        view: &ViewId,
        writes: Vec<PieceWrite>,
    ) -> Result<Vec<WriteOutcome>, StoreError>;

    /// Offset after the last event that the view has absorbed from each partition of its source.
    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError>;

    /// Remembers progress; durable, like the writes before it, after the next [`OnlineStore::flush`]. `expected` is what
    /// the writer believes is there. Fenced, and nothing changed, if one is there and the other is not, if less is there,
    /// or if it would go back.
    async fn set_progress(
        &self,
        session: Session,
        view: &ViewId,
        partition: i32,
        expected: Option<i64>,
        next_offset: i64,
    ) -> Result<WriteOutcome, StoreError>;

    /// Makes everything written so far durable.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Up to `limit` keys of a view after the given one, ascending by their bytes: for status, tests and clean-up.
    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError>;

    /// What each view takes that was written to. It looks at every key: for people who ask, not for every minute.
    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError>;

    /// Whether other processes may use it too.
    fn shared(&self) -> bool {
        false
    }

    /// Whether it forgets keys that are idle, see [`PieceWrite::idle_after`]: then a key that isn't there may have been.
    fn forgets(&self) -> bool {
        false
    }

    /// Whether it keeps keys in their order, so that many of them take less time in one write than in several.
    fn ordered(&self) -> bool {
        false
    }

    /// Every view that was written to or has progress.
    async fn views(&self) -> Result<Vec<ViewId>, StoreError>;

    /// Forgets the progress and then the pieces of some partitions of views: by view and partition, the progress that the caller believes
    /// is there. An error, if there is another, or somebody takes them up meanwhile. It may look at every key, once.
    async fn drop_partitions(&self, dropped: &Dropped) -> Result<(), StoreError>;

    /// Forgets a view: its progress and its pieces; an error, if somebody else takes it up meanwhile.
    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError>;
}
