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
/// A view's identity in a store: its name, readable, and the fingerprint of its compiled form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId { pub name: String, pub fingerprint: String }

/// One key's state from one source partition, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPiece { pub partition: i32, pub absorbed: i64, pub head: Bytes, pub chunks: Vec<(u32, Bytes)> }

pub struct PieceWrite {
    pub key: EntityKey,
    pub partition: i32,
    /// The last offset that the writer believes the stored piece has absorbed; `None` for a piece that does not exist.
    pub expected: Option<i64>,
    pub absorbed: i64,
    pub head: Bytes,
    pub chunks: Vec<(u32, Bytes)>,   // added or replaced
    pub removed: Vec<u32>,
}
pub enum WriteOutcome { Written, Fenced { holds: Option<i64> } }

#[async_trait]
pub trait OnlineStore: Debug + Send + Sync {
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError>;
    async fn write(&self, view: &ViewId, writes: Vec<PieceWrite>) -> Result<Vec<WriteOutcome>, StoreError>;
    /// Offset after the last event that the view has absorbed from each partition of its source.
    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError>;
    async fn set_progress(&self, view: &ViewId, partition: i32, next_offset: i64) -> Result<(), StoreError>;
    async fn flush(&self) -> Result<(), StoreError>;
    /// Every key of a view, for status, tests and clean-up (page by page).
    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError>;
    async fn views(&self) -> Result<Vec<ViewId>, StoreError>;
    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError>;
}
