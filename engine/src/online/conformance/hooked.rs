//! A real store that tests hold up or let fail.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::kernel::EntityKey;
use crate::online::{Dropped, OnlineStore, PieceWrite, Session, StoreError, StoredPiece, Usage, ViewId, WriteOutcome};

/// Runs before an access, and may wait or refuse it.
#[async_trait]
pub trait Hook: Debug + Send + Sync {
    /// Before pieces are read.
    async fn read(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Before progress is read.
    async fn look(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Before pieces are written.
    async fn write(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store behind a hook.
#[derive(Debug)]
pub struct Hooked<H> {
    pub store: Arc<dyn OnlineStore>,
    pub hook: H,
}

#[async_trait]
impl<H: Hook> OnlineStore for Hooked<H> {
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        self.hook.read().await?;
        self.store.read(view, keys).await
    }

    async fn fetch(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError> {
        self.hook.read().await?;
        self.store.fetch(view, partition, wanted).await
    }

    async fn session(&self) -> Result<Session, StoreError> {
        self.store.session().await
    }

    async fn write(
        &self,
        session: Session,
        view: &ViewId,
        writes: Vec<PieceWrite>,
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        self.hook.write().await?;
        self.store.write(session, view, writes).await
    }

    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError> {
        self.hook.look().await?;
        self.store.progress(view).await
    }

    async fn set_progress(
        &self,
        session: Session,
        view: &ViewId,
        partition: i32,
        expected: Option<i64>,
        next_offset: i64,
    ) -> Result<WriteOutcome, StoreError> {
        self.store.set_progress(session, view, partition, expected, next_offset).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.store.flush().await
    }

    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        self.store.keys(view, after, limit).await
    }

    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        self.store.usage().await
    }

    async fn views(&self) -> Result<Vec<ViewId>, StoreError> {
        self.store.views().await
    }

    fn shared(&self) -> bool {
        self.store.shared()
    }

    fn forgets(&self) -> bool {
        self.store.forgets()
    }

    fn ordered(&self) -> bool {
        self.store.ordered()
    }

    async fn drop_partitions(&self, dropped: &Dropped) -> Result<(), StoreError> {
        self.store.drop_partitions(dropped).await
    }

    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError> {
        self.store.drop_view(view).await
    }
}
