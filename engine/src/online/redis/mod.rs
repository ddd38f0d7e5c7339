//! The Redis store: an [`OnlineStore`] on one server or a cluster, for many processes.
//!
//! Names and fields are in [`layout`]. A write is one script that checks what the stored piece has absorbed and sets the
//! new fields: atomic, fenced, and bounded by what changed. A read is one `HGETALL` a key, all in one round trip.
//!
//! # What a server that goes down may lose
//!
//! Redis answers before its disk does, so that a crash or a failover loses the latest writes. What is left of one server
//! is the state after some earlier moment: progress is written after the pieces that it stands for, and to every
//! server of a cluster, and the least of what they hold is what counts. So whoever begins again from the store's
//! progress loses nothing. That a writer must begin again it learns from the script: its text names the session, a
//! server that comes back doesn't know it, and refuses the first write before anything is written on top of the gap.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value};
use sha2::{Digest, Sha256};

use super::{OnlineStore, PieceWrite, Session, StoreError, StoredPiece, Usage, ViewId, WriteOutcome};
use crate::kernel::EntityKey;

mod layout;
mod link;
mod tags;

use layout::Layout;
use link::Link;
pub use link::RedisConfig;

/// Each names its session in a comment.
const PIECES: &str = include_str!("write.lua");
const PROGRESS: &str = include_str!("progress.lua");
/// Bytes of arguments in one round trip at most.
const ROUND_TRIP: usize = 8 << 20;
/// Keys of a view whose bytes are measured.
const SAMPLE: usize = 200;
/// Keys that one step of a scan looks at.
const SCAN: usize = 1000;

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

/// The scripts under which this process writes, and the views that the store was told of.
#[derive(Debug, Clone, Default)]
struct Writer {
    session: Session,
    /// SHA-1 of the script for pieces, and of that for progress; empty before the first session.
    pieces: String,
    progress: String,
    known: HashSet<ViewId>,
}

impl RedisStore {
    pub async fn open(config: &RedisConfig) -> Result<RedisStore, StoreError> {
        let at = public(&config.url);
        let link = Link::open(config).await.map_err(|e| failed(&at, "can't connect", &e))?;
        let tags = tags::tags(link.is_cluster());
        let (layout, keep_idle) = (Layout::new(&config.project), config.keep_idle);
        let store = RedisStore { link, layout, at, tags, keep_idle, session: Mutex::default() };
        store.check_policy().await?;
        store.session().await?;
        Ok(store)
    }

    /// A server that evicts what it likes would take keys that are not idle.
    async fn check_policy(&self) -> Result<(), StoreError> {
        let what = "can't ask for its settings";
        for node in self.link.masters().await.map_err(self.failed(what))? {
            let mut info = cmd("INFO");
            info.arg("memory");
            let answer = self.link.on(&node, info).await.map_err(self.failed(what))?;
            let info: String = from_redis_value(answer).map_err(|e| self.failed(what)(RedisError::from(e)))?;
            let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).unwrap_or("noeviction");
            if policy.trim() != "noeviction" {
                return Err(StoreError::Redis {
                    at: self.at.clone(),
                    what: "is no place for state",
                    cause: format!(
                        "its maxmemory-policy is {}; expected noeviction; hint: CONFIG SET maxmemory-policy noeviction",
                        policy.trim()
                    ),
                });
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(RedisError) -> StoreError {
        let at = self.at.clone();
        move |error| failed(&at, what, &error)
    }

    /// A writer that panicked left whole values behind.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write with in a session, unless it is over.
    fn writer_in(&self, session: Session) -> Result<Writer, StoreError> {
        let writer = self.lock();
        if writer.session != session || writer.pieces.is_empty() {
            return Err(StoreError::SessionEnded { at: self.at.clone() });
        }
        Ok(Writer { known: HashSet::new(), ..writer.clone() })
    }

    /// Adds a view to the list of views, once a session.
    async fn remember(&self, view: &ViewId) -> Result<(), StoreError> {
        if self.lock().known.contains(view) {
            return Ok(());
        }
        let mut add = cmd("SADD");
        add.arg(self.layout.views()).arg(self.layout.member(view));
        self.all("can't write", vec![add]).await?;
        self.lock().known.insert(view.clone());
        Ok(())
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

    /// The keys that match a pattern, on all servers, in no order.
    async fn scan(&self, pattern: &str) -> Result<HashSet<String>, StoreError> {
        let failed = self.failed("can't list keys");
        let mut keys = HashSet::new();
        for node in self.link.masters().await.map_err(&failed)? {
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN);
                let answer = self.link.on(&node, scan).await.map_err(&failed)?;
                let (next, found): (String, Vec<Vec<u8>>) =
                    from_redis_value(answer).map_err(|e| failed(RedisError::from(e)))?;
                keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(keys)
    }

    fn write_command(&self, sha: &str, view: &ViewId, write: &PieceWrite) -> (Cmd, usize) {
        // What goes back is refused whatever is stored.
        let back = write.expected.is_some_and(|expected| write.absorbed < expected);
        let head = if back { vec![] } else { layout::head_value(write.absorbed, &write.head) };
        let mut bytes = head.len();
        let mut eval = cmd("EVALSHA");
        eval.arg(sha).arg(1).arg(self.layout.key(view, &write.key)).arg(layout::head_field(write.partition));
        let idle = write.idle_after.filter(|_| !self.keep_idle).map_or(0, |idle| idle.as_millis().max(1));
        let idle = u64::try_from(idle).unwrap_or(0);
        eval.arg(write.expected.map(|offset| offset.to_string()).unwrap_or_default()).arg(head).arg(idle);
        eval.arg(write.removed.len());
        write.removed.iter().for_each(|chunk| {
            eval.arg(layout::chunk_field(write.partition, *chunk));
        });
        for (chunk, data) in &write.chunks {
            eval.arg(layout::chunk_field(write.partition, *chunk)).arg(data.as_ref());
            bytes += data.len();
        }
        (eval, bytes)
    }

    /// Writes of which no two are of one key.
    async fn write_some(
        &self,
        sha: &str,
        view: &ViewId,
        writes: &[PieceWrite],
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut commands: Vec<Cmd> = vec![];
        let mut bytes = 0;
        let mut writes = writes.iter().peekable();
        while let Some(write) = writes.next() {
            let (command, size) = self.write_command(sha, view, write);
            commands.push(command);
            bytes += size;
            if bytes < ROUND_TRIP && writes.peek().is_some() {
                continue;
            }
            bytes = 0;
            let answers = self.link.all(std::mem::take(&mut commands)).await.map_err(self.failed("can't write"))?;
            for answer in answers {
                outcomes.push(self.outcome("can't write", answer)?);
            }
        }
        Ok(outcomes)
    }

    fn outcome(&self, what: &'static str, answer: Result<Value, RedisError>) -> Result<WriteOutcome, StoreError> {
        match answer {
            Ok(Value::Int(_)) => Ok(WriteOutcome::Written),
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

    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        let commands = keys.iter().map(|key| {
            let mut get = cmd("HGETALL");
            get.arg(self.layout.key(view, key));
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
            let mut seen = HashSet::new();
            let distinct = rest.iter().take_while(|write| seen.insert(&write.key)).count();
            let (now, later) = rest.split_at(distinct);
            outcomes.extend(self.write_some(&writer.pieces, view, now).await?);
            rest = later;
        }
        Ok(outcomes)
    }

    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError> {
        let commands = self.tags.iter().map(|tag| {
            let mut get = cmd("HGETALL");
            get.arg(self.layout.progress(view, tag));
            get
        });
        let mut least: Option<BTreeMap<i32, i64>> = None;
        for answer in self.all("can't read progress", commands.collect()).await? {
            let held: BTreeMap<i32, i64> =
                from_redis_value(answer).map_err(|e| self.failed("can't read progress")(RedisError::from(e)))?;
            least = Some(match least {
                None => held,
                // What one server doesn't know of it has lost.
                Some(least) => {
                    let both = least.into_iter().filter_map(|(p, next)| Some((p, next.min(*held.get(&p)?))));
                    both.collect()
                }
            });
        }
        Ok(least.unwrap_or_default())
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
            eval.arg(u8::from(expected.is_some())).arg(next_offset);
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
        let found = self.scan(&self.layout.pattern(view)).await?;
        let mut keys: Vec<EntityKey> = found.iter().filter_map(|key| self.layout.entity(view, key)).collect();
        keys.retain(|key| after.is_none_or(|after| key > after));
        keys.sort();
        keys.truncate(limit);
        Ok(keys)
    }

    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        let what = "can't measure";
        let mut keys: BTreeMap<ViewId, Vec<String>> = BTreeMap::new();
        let mut counts: BTreeMap<ViewId, u64> = BTreeMap::new();
        for key in self.scan(&self.layout.all()).await? {
            let Some(view) = self.layout.view_of(&key) else { continue };
            *counts.entry(view.clone()).or_default() += 1;
            let sample = keys.entry(view).or_default();
            if sample.len() < SAMPLE {
                sample.push(key);
            }
        }
        let mut used = BTreeMap::new();
        for (view, sample) in keys {
            let measure = sample.iter().map(|key| {
                let mut usage = cmd("MEMORY");
                usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
                usage
            });
            // A key that expired since is none.
            let bytes = self.all(what, measure.collect()).await?.into_iter().filter_map(|answer| match answer {
                Value::Int(bytes) => u64::try_from(bytes).ok(),
                _ => None,
            });
            let keys = counts.get(&view).copied().unwrap_or(0);
            let bytes = bytes.sum::<u64>() * keys / sample.len().max(1) as u64;
            used.insert(view, Usage { keys, bytes });
        }
        Ok(used)
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

    async fn drop_partitions(&self, view: &ViewId, partitions: &[i32]) -> Result<(), StoreError> {
        let what = "can't drop partitions";
        // Progress first: whoever comes in the middle finds less than there is, never more.
        let progress = self.tags.iter().map(|tag| {
            let mut delete = cmd("HDEL");
            delete.arg(self.layout.progress(view, tag)).arg(partitions);
            delete
        });
        self.all(what, progress.collect()).await?;
        let keys: Vec<String> = self.scan(&self.layout.pattern(view)).await?.into_iter().collect();
        let fields = keys.iter().map(|key| {
            let mut fields = cmd("HKEYS");
            fields.arg(key);
            fields
        });
        let fields = self.all(what, fields.collect()).await?;
        let mut deletes = vec![];
        for (key, fields) in keys.iter().zip(fields) {
            let fields: Vec<String> = from_redis_value(fields).map_err(|e| self.failed(what)(RedisError::from(e)))?;
            let of_partition = |field: &String| layout::partition(field).is_some_and(|p| partitions.contains(&p));
            let dropped: Vec<String> = fields.into_iter().filter(of_partition).collect();
            if !dropped.is_empty() {
                let mut delete = cmd("HDEL");
                delete.arg(key).arg(dropped);
                deletes.push(delete);
            }
        }
        self.all(what, deletes).await.map(|_| ())
    }

    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError> {
        let keys = self.scan(&self.layout.pattern(view)).await?;
        let progress = self.tags.iter().map(|tag| self.layout.progress(view, tag));
        let unlink = |key: String| {
            let mut unlink = cmd("UNLINK");
            unlink.arg(key);
            unlink
        };
        self.all("can't drop a view", progress.map(unlink).collect()).await?;
        self.all("can't drop a view", keys.into_iter().map(unlink).collect()).await?;
        let mut remove = cmd("SREM");
        remove.arg(self.layout.views()).arg(self.layout.member(view));
        self.all("can't drop a view", vec![remove]).await?;
        self.lock().known.remove(view);
        Ok(())
    }
}

fn failed(at: &str, what: &'static str, error: &RedisError) -> StoreError {
    let cause = match error.code() {
        Some("OOM") => "it is full: its maxmemory is reached; give it more, or drop views that nobody reads".to_owned(),
        Some("LOADING") => "it is still loading its data".to_owned(),
        _ => error.to_string(),
    };
    StoreError::Redis { at: at.to_owned(), what, cause }
}

/// A URL without its password.
fn public(url: &str) -> String {
    let one = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    };
    url.split(',').map(|url| one(url.trim())).collect::<Vec<_>>().join(",")
}

/// A text that no other session has: this process, this moment, this call.
fn nonce() -> String {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // An address of this process is random where the system randomises them, which tells two machines apart.
    let here = &raw const CALLS as usize;
    let digest = Sha256::digest(format!("{} {} {call} {here}", std::process::id(), now.as_nanos()));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
