//! What stops a worker, or makes it wait.

use crate::kernel::KernelError;
use crate::offline::OfflineError;
use crate::online::StoreError;
use crate::request::ReadError;
use crate::source::SourceError;

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("online store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error(transparent)]
    State(ReadError),
    #[error("view {view}: {source}")]
    View { view: String, source: datafusion::error::DataFusionError },
    #[error("view {view}: {source}")]
    Kernel { view: String, source: KernelError },
    /// The disk is full, most likely.
    #[error("what doesn't fit into memory can't be put into temporary files: {0}")]
    Spill(datafusion::error::DataFusionError),
    #[error(
        "view {view}, partition {partition}: another writer keeps getting ahead; is a second instance running on the same partition?"
    )]
    Fenced { view: String, partition: i32 },
    #[error(
        "view {view}, partition {partition}: the online store no longer has what was written to it; rebuilding from the archive"
    )]
    StateLost { view: String, partition: i32 },
    /// It can't fill, now or later.
    #[error("view {view} can't be filled from the archive: {why}")]
    Removed { view: String, why: String },
    #[error(
        "source {source_name}, partition {partition}: the archive or the online store holds events up to offset {held}, but the source ends at {end}; \
         was its log or topic deleted? Restore it, or delete the archive and the online state"
    )]
    LogBehind { source_name: String, partition: i32, held: i64, end: i64 },
}

impl StreamError {
    /// Whether trying again may help.
    pub(super) fn passing(&self) -> bool {
        self.stale()
            || matches!(
                self,
                StreamError::Source(_) | StreamError::Store(_) | StreamError::Offline(_) | StreamError::Spill(_)
            )
    }

    /// Whether what the worker remembers is no longer so: it must begin again from what is stored.
    pub(super) fn stale(&self) -> bool {
        matches!(
            self,
            StreamError::Store(StoreError::SessionEnded { .. } | StoreError::TakenUp { .. })
                | StreamError::StateLost { .. }
                | StreamError::Fenced { .. }
                | StreamError::Offline(OfflineError::Conflict { .. } | OfflineError::Encode { .. })
        )
    }

    /// Whether a drain gives up on it: waiting or beginning again is of no use where nobody watches.
    pub(super) fn lasts(&self) -> bool {
        !self.stale() || matches!(self, StreamError::Offline(OfflineError::Encode { .. }))
    }

    /// In one word, for a metric's label.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            StreamError::Source(_) => "source",
            StreamError::Store(StoreError::SessionEnded { .. }) => "session",
            StreamError::Store(StoreError::TakenUp { .. }) => "fenced",
            StreamError::Store(_) => "store",
            StreamError::Offline(OfflineError::Conflict { .. }) => "fenced",
            StreamError::Offline(_) => "archive",
            StreamError::StateLost { .. } => "lost",
            StreamError::Fenced { .. } => "fenced",
            StreamError::Spill(_) => "disk",
            _ => "view",
        }
    }
}
