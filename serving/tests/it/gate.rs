//! A real store behind a gate: held shut, so that a test sees a view that fills; or failing, so that it sees a stall.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tidemark_engine::kernel::EntityKey;
use tidemark_engine::online::{OnlineStore, PieceWrite, Session, StoreError, StoredPiece, Usage, ViewId, WriteOutcome};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    Open,
    /// Writes wait.
    Shut,
    /// Reads and writes of pieces fail.
    Broken,
}

#[derive(Debug)]
pub struct Gated {
    pub inner: Arc<dyn OnlineStore>,
    pub gate: watch::Receiver<Gate>,
}

impl Gated {
    fn check(&self) -> Result<(), StoreError> {
        match *self.gate.borrow() {
            Gate::Broken => Err(StoreError::Storage {
                path: PathBuf::from("online.redb"),
                what: "can't reach it",
                cause: "secret cause".into(),
            }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl OnlineStore for Gated {
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        self.check()?;
        self.inner.read(view, keys).await
    }

    async fn fetch(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError> {
        self.check()?;
        self.inner.fetch(view, partition, wanted).await
    }

    async fn session(&self) -> Result<Session, StoreError> {
        self.inner.session().await
    }

    async fn write(
        &self,
        session: Session,
        view: &ViewId,
        writes: Vec<PieceWrite>,
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        self.check()?;
        let _ = self.gate.clone().wait_for(|gate| *gate != Gate::Shut).await;
        self.inner.write(session, view, writes).await
    }

    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError> {
        self.inner.progress(view).await
    }

    async fn set_progress(
        &self,
        session: Session,
        view: &ViewId,
        partition: i32,
        expected: Option<i64>,
        next_offset: i64,
    ) -> Result<WriteOutcome, StoreError> {
        self.inner.set_progress(session, view, partition, expected, next_offset).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush().await
    }

    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        self.inner.keys(view, after, limit).await
    }

    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        self.inner.usage().await
    }

    async fn views(&self) -> Result<Vec<ViewId>, StoreError> {
        self.inner.views().await
    }

    async fn drop_partitions(&self, view: &ViewId, partitions: &[i32]) -> Result<(), StoreError> {
        self.inner.drop_partitions(view, partitions).await
    }

    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError> {
        self.inner.drop_view(view).await
    }
}
