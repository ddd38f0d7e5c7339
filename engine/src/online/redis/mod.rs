//! The Redis store: an [`OnlineStore`] on one server or a cluster, for many processes.
//!
//! Names and fields are in [`layout`]. A write is a script that checks what the stored piece has absorbed and sets the
//! new fields: atomic, fenced, and bounded by what changed. (A first piece that is whole needs no script: HSETNX is its fence.) A read is one `HGETALL` a key, all in one round trip.
//!
//! # What a server that goes down may lose
//!
//! Redis answers before its disk does, so that a crash or a failover loses the latest writes. What is left of one server
//! is the state after some earlier moment: progress is written after the pieces that it stands for, and to every
//! server of a cluster, and the least of what they hold is what counts. So whoever begins again from the store's
//! progress loses nothing. That a writer must begin again it learns from the script: its text names the session, a
//! server that comes back doesn't know it, and refuses the first write before anything is written on top of the gap.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use ahash::RandomState;
use async_trait::async_trait;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value};

use super::{Dropped, OnlineStore, PieceWrite, Session, StoreError, StoredPiece, Usage, ViewId, WriteOutcome};
use crate::kernel::EntityKey;

mod layout;
mod link;
mod scan;
mod session;
mod tags;
mod write;

use layout::Layout;
use link::Link;
pub use link::RedisConfig;
use session::Writer;

/// An online store in Redis. Several processes may write to one, each piece by its one owner.
#[derive(Debug)]
pub struct RedisStore {
    link: Link,
    layout: Layout,
    /// Without the password.
    at: String,
    tags: Vec<String>,
    keep_idle: bool,
    session: Mutex<Writer>,
}

impl RedisStore {
    pub async fn open(config: &RedisConfig) -> Result<RedisStore, StoreError> {
        let at = public(&config.url);
        let link = Link::open(config).await.map_err(|e| failed(&at, "can't connect", &e))?;
        let tags = tags::tags(link.is_cluster());
        let (layout, keep_idle) = (Layout::new(&config.project), config.keep_idle);
        let store = RedisStore { link, layout, at, tags, keep_idle, session: Mutex::default() };
        store.check_servers().await?;
        store.session().await?;
        Ok(store)
    }

    /// Refuses servers that can't keep the promises: before version 7 scripts outlive a restart, so that nothing would tell
    /// that writes were lost; and one that evicts what it likes takes keys that are not idle.
    async fn check_servers(&self) -> Result<(), StoreError> {
        let what = "can't ask for its settings";
        for node in self.link.masters().await.map_err(self.failed(what))? {
            let answer = self.link.on(&node, cmd("INFO")).await.map_err(self.failed(what))?;
            let info: String = from_redis_value(answer).map_err(|e| self.failed(what)(RedisError::from(e)))?;
            let find = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            let version = find("redis_version:").unwrap_or("unknown");
            let policy = find("maxmemory_policy:").unwrap_or("noeviction");
            let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            let cause = if major.is_some_and(|major| major < 7) {
                format!("its version is {version}; expected 7 or later")
            } else if policy != "noeviction" {
                format!(
                    "its maxmemory-policy is {policy}; expected noeviction; hint: CONFIG SET maxmemory-policy noeviction"
                )
            } else {
                continue;
            };
            return Err(StoreError::Redis { at: self.at.clone(), what: "is no place for state", cause });
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(RedisError) -> StoreError {
        let at = self.at.clone();
        move |error| failed(&at, what, &error)
    }

    fn damaged(&self, view: &ViewId, key: &str, partition: i32, cause: &str) -> StoreError {
        let (view, key, cause) = (view.name.clone(), key.to_owned(), cause.to_owned());
        StoreError::Damaged { path: self.at.clone().into(), view, key, partition, cause }
    }

    /// The answers of commands none of which may fail.
    async fn all(&self, what: &'static str, commands: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let answers = self.link.all(commands).await.map_err(self.failed(what))?;
        answers.into_iter().collect::<Result<_, _>>().map_err(self.failed(what))
    }

    /// Progress as each tag has it.
    async fn progress_of_each(&self, view: &ViewId) -> Result<Vec<BTreeMap<i32, i64>>, StoreError> {
        let what = "can't read progress";
        let commands = self.tags.iter().map(|tag| {
            let mut get = cmd("HGETALL");
            get.arg(self.layout.progress(view, tag));
            get
        });
        let answers = self.all(what, commands.collect()).await?;
        answers.into_iter().map(|answer| from_redis_value(answer).map_err(|e| self.failed(what)(e.into()))).collect()
    }

    fn outcome(&self, what: &'static str, answer: Result<Value, RedisError>) -> Result<WriteOutcome, StoreError> {
        match answer {
            Ok(Value::Int(1)) => Ok(WriteOutcome::Written),
            // Something was there.
            Ok(Value::Int(0)) => Ok(WriteOutcome::Fenced { holds: None }),
            Ok(Value::BulkString(holds)) => {
                let holds = std::str::from_utf8(&holds).ok().and_then(|text| text.parse().ok());
                Ok(WriteOutcome::Fenced { holds })
            }
            Ok(other) => {
                Err(StoreError::Redis { at: self.at.clone(), what, cause: format!("the script answered {other:?}") })
            }
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Err(StoreError::SessionEnded { at: self.at.clone() })
            }
            Err(error) => Err(self.failed(what)(error)),
        }
    }
}

#[async_trait]
impl OnlineStore for RedisStore {
    async fn session(&self) -> Result<Session, StoreError> {
        self.begin().await
    }

    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        let name = self.layout.keys(view);
        let commands = keys.iter().map(|key| {
            let mut get = cmd("HGETALL");
            get.arg(name(key));
            get
        });
        let answers = self.all("can't read", commands.collect()).await?;
        let read = |(key, answer): (&EntityKey, Value)| {
            let fields: Vec<(Vec<u8>, Vec<u8>)> =
                from_redis_value(answer).map_err(|e| self.failed("can't read")(RedisError::from(e)))?;
            layout::pieces(fields).map_err(|(partition, cause)| self.damaged(view, key.as_str(), partition, cause))
        };
        keys.iter().zip(answers).map(read).collect()
    }

    async fn fetch(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError> {
        let name = self.layout.keys(view);
        let commands = wanted.iter().map(|(key, chunks)| {
            let mut get = cmd("HMGET");
            get.arg(name(key)).arg(layout::head_field(partition));
            chunks.iter().for_each(|chunk| {
                get.arg(layout::chunk_field(partition, *chunk));
            });
            get
        });
        let answers = self.all("can't read", commands.collect()).await?;
        let read = |((key, chunks), answer): (&(EntityKey, Vec<u32>), Value)| {
            let fields: Vec<Option<Vec<u8>>> =
                from_redis_value(answer).map_err(|e| self.failed("can't read")(RedisError::from(e)))?;
            let mut fields = fields.into_iter();
            let Some(head) = fields.next().flatten() else { return Ok(None) };
            let mut piece =
                layout::piece(partition, head).map_err(|cause| self.damaged(view, key.as_str(), partition, cause))?;
            let there = chunks.iter().zip(fields).filter_map(|(chunk, bytes)| Some((*chunk, bytes?.into())));
            piece.chunks.extend(there);
            Ok(Some(piece))
        };
        wanted.iter().zip(answers).map(read).collect()
    }

    async fn write(
        &self,
        session: Session,
        view: &ViewId,
        writes: Vec<PieceWrite>,
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        if writes.is_empty() {
            return Ok(vec![]);
        }
        let writer = self.writer_in(session)?;
        self.remember(view).await?;
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut rest = writes.as_slice();
        while !rest.is_empty() {
            let mut seen = HashSet::with_capacity_and_hasher(rest.len(), RandomState::default());
            let distinct = rest.iter().take_while(|write| seen.insert(&write.key)).count();
            let (now, later) = rest.split_at(distinct);
            outcomes.extend(self.write_distinct(&writer.pieces, view, now).await?);
            rest = later;
        }
        Ok(outcomes)
    }

    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError> {
        Ok(least(self.progress_of_each(view).await?))
    }

    async fn set_progress(
        &self,
        session: Session,
        view: &ViewId,
        partition: i32,
        expected: Option<i64>,
        next_offset: i64,
    ) -> Result<WriteOutcome, StoreError> {
        let writer = self.writer_in(session)?;
        self.remember(view).await?;
        let sets = self.tags.iter().map(|tag| {
            let mut eval = cmd("EVALSHA");
            eval.arg(&writer.progress).arg(1).arg(self.layout.progress(view, tag)).arg(partition);
            eval.arg(expected.map(|held| held.to_string()).unwrap_or_default()).arg(next_offset);
            eval
        });
        let what = "can't set progress";
        let answers = self.link.all(sets.collect()).await.map_err(self.failed(what))?;
        let mut outcome = WriteOutcome::Written;
        for answer in answers {
            if let fenced @ WriteOutcome::Fenced { .. } = self.outcome(what, answer)? {
                outcome = fenced;
            }
        }
        Ok(outcome)
    }

    /// What is written is as durable as the server's settings make it; see the module's words on what may be lost.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        let found = self.scan(self.layout.pattern(view)).await?;
        let mut keys: Vec<EntityKey> = found.iter().filter_map(|key| self.layout.entity(view, key)).collect();
        keys.retain(|key| after.is_none_or(|after| key > after));
        keys.sort();
        keys.truncate(limit);
        Ok(keys)
    }

    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        self.measure().await
    }

    fn shared(&self) -> bool {
        true
    }

    fn forgets(&self) -> bool {
        !self.keep_idle
    }

    async fn views(&self) -> Result<Vec<ViewId>, StoreError> {
        let mut members = cmd("SMEMBERS");
        members.arg(self.layout.views());
        let mut answers = self.all("can't list views", vec![members]).await?;
        let members: Vec<String> = match answers.pop() {
            Some(answer) => {
                from_redis_value(answer).map_err(|e| self.failed("can't list views")(RedisError::from(e)))?
            }
            None => vec![],
        };
        Ok(members.iter().filter_map(|member| self.layout.view(member)).collect())
    }

    async fn drop_partitions(&self, dropped: &Dropped) -> Result<(), StoreError> {
        self.forget_partitions(dropped).await
    }

    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError> {
        self.forget_view(view).await
    }
}

/// What all servers know of progress: what one of them doesn't know of it has lost.
fn least(each: Vec<BTreeMap<i32, i64>>) -> BTreeMap<i32, i64> {
    let both = |least: BTreeMap<i32, i64>, held: BTreeMap<i32, i64>| {
        least.into_iter().filter_map(|(p, next)| Some((p, next.min(*held.get(&p)?)))).collect()
    };
    each.into_iter().reduce(both).unwrap_or_default()
}

fn failed(at: &str, what: &'static str, error: &RedisError) -> StoreError {
    let cause = match error.code() {
        Some("OOM") => "it is full: its maxmemory is reached; give it more, or drop views that nobody reads".to_owned(),
        Some("LOADING") => "it is still loading its data".to_owned(),
        _ => error.to_string(),
    };
    StoreError::Redis { at: at.to_owned(), what, cause }
}

/// A URL without its user and password. Whatever stands before the last `@` may be a part of them.
fn public(url: &str) -> String {
    let scheme = url.split_once("://").map_or("redis", |(scheme, _)| scheme);
    match url.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
