//! Sessions: how a writer learns that a server may have lost what it took.
//!
//! Guarantee: a write of a session reaches only servers that have been up, and masters, since the session began. Its script
//! is loaded then and nowhere else, and its text holds a word that no other session has: a server that was restarted, or
//! took over from another one, answers NOSCRIPT.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use redis::{RedisError, cmd, from_redis_value};
use sha2::{Digest, Sha256};

use super::RedisStore;
use crate::online::{Session, StoreError, ViewId};

/// Each names its session in a comment.
const PIECES: &str = include_str!("write.lua");
const PROGRESS: &str = include_str!("progress.lua");

/// The scripts under which this process writes, and the views that the store was told of.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    pub session: Session,
    /// SHA-1 of the script for pieces, and of that for progress; empty before the first session.
    pub pieces: String,
    pub progress: String,
    pub known: HashSet<ViewId>,
}

impl RedisStore {
    /// The session that all servers know; a new one, if one of them doesn't know the last.
    pub(super) async fn begin(&self) -> Result<Session, StoreError> {
        let failed = self.failed("can't begin a session");
        let masters = self.link.masters().await.map_err(&failed)?;
        let current = self.lock().clone();
        let mut known = !current.pieces.is_empty();
        for node in masters.iter().filter(|_| !current.pieces.is_empty()) {
            let mut exists = cmd("SCRIPT");
            exists.arg("EXISTS").arg(&current.pieces).arg(&current.progress);
            let answer = self.link.on(node, exists).await.map_err(&failed)?;
            let answer: Vec<bool> = from_redis_value(answer).map_err(|e| failed(RedisError::from(e)))?;
            known &= answer == [true, true];
        }
        if known {
            return Ok(current.session);
        }
        let nonce = nonce();
        let mut shas = vec![];
        for script in [PIECES, PROGRESS] {
            let script = script.replace("@SESSION@", &nonce);
            let mut sha = String::new();
            for node in &masters {
                let mut load = cmd("SCRIPT");
                load.arg("LOAD").arg(&script);
                let answer = self.link.on(node, load).await.map_err(&failed)?;
                sha = from_redis_value(answer).map_err(|e| failed(RedisError::from(e)))?;
            }
            shas.push(sha);
        }
        let mut writer = self.lock();
        let progress = shas.pop().unwrap_or_default();
        let pieces = shas.pop().unwrap_or_default();
        *writer = Writer { session: Session(writer.session.0 + 1), pieces, progress, known: HashSet::new() };
        Ok(writer.session)
    }

    /// A writer that panicked left whole values behind.
    pub(super) fn lock(&self) -> MutexGuard<'_, Writer> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write with in a session, unless it is over.
    pub(super) fn writer_in(&self, session: Session) -> Result<Writer, StoreError> {
        let writer = self.lock();
        if writer.session != session || writer.pieces.is_empty() {
            return Err(StoreError::SessionEnded { at: self.at.clone() });
        }
        Ok(Writer { known: HashSet::new(), ..writer.clone() })
    }

    /// Adds a view to the list of views, once a session.
    pub(super) async fn remember(&self, view: &ViewId) -> Result<(), StoreError> {
        if self.lock().known.contains(view) {
            return Ok(());
        }
        let mut add = cmd("SADD");
        add.arg(self.layout.views()).arg(self.layout.member(view));
        self.all("can't write", vec![add]).await?;
        self.lock().known.insert(view.clone());
        Ok(())
    }
}

/// A text that no other session has: this process, this moment, this call.
pub(super) fn nonce() -> String {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // An address of this process is random where the system randomises them, which tells two machines apart.
    let here = &raw const CALLS as usize;
    let digest = Sha256::digest(format!("{} {} {call} {here}", std::process::id(), now.as_nanos()));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
