//! A real store behind a gate: held shut, so that a test sees a view that fills; or failing, so that it sees a stall.

use std::path::PathBuf;

use async_trait::async_trait;
use tidemark_engine::online::StoreError;
use tidemark_engine::online::conformance::Hook;
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
impl Hook for Gated {
    async fn read(&self) -> Result<(), StoreError> {
        self.check()
    }

    async fn write(&self) -> Result<(), StoreError> {
        self.check()?;
        let _ = self.gate.clone().wait_for(|gate| *gate != Gate::Shut).await;
        Ok(())
    }
}
