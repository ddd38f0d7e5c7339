//! The embedded store: an [`OnlineStore`] in one file, for one process.
//!
//! Layout: one table, (view number, key, partition, slot) → bytes. Slot −1 is a piece's head (the offset it
//! has absorbed, then the writer's bytes), slots from 0 its chunks; so that a key's whole state is one range.
//!
//! Writes are commits that the disk may still lose; [`EmbeddedStore::flush`] is a durable commit, which takes
//! all earlier ones with it. Writes run on tokio's blocking threads, since they wait for each other. Reads
//! of a few keys run where they are: a range over pages in memory costs a few microseconds, less than the
//! hop to another thread; reads of many keys, and scans, hop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{Dropped, OnlineStore, PieceWrite, Session, StoreError, StoredPiece, Usage, ViewId, WriteOutcome};
use crate::database::{self, Kind};
use crate::kernel::EntityKey;

const KIND: Kind = Kind { name: "online store", version: "1", cache: 256 << 20 };
type SlotKey = (u32, &'static str, i32, i64);
const STATE: TableDefinition<SlotKey, &[u8]> = TableDefinition::new("state");
/// (view number, partition) → next offset.
const PROGRESS: TableDefinition<(u32, i32), i64> = TableDefinition::new("progress");
/// (view name, fingerprint) → view number.
const VIEWS: TableDefinition<(&str, &str), u32> = TableDefinition::new("views");

const HEAD: i64 = -1;
/// Up to this many keys a read stays on the caller's thread.
const INLINE_KEYS: usize = 16;

/// An online store in one file. Cheap to clone: clones share the file.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    path: Arc<PathBuf>,
    database: Arc<Database>,
}

impl EmbeddedStore {
    /// Opens the store at `path`, or creates it. Blocks on the disk.
    pub fn open(path: impl AsRef<Path>) -> Result<EmbeddedStore, StoreError> {
        let path = path.as_ref();
        let database = database::open(path, KIND)?;
        let store = EmbeddedStore { path: Arc::new(path.into()), database: Arc::new(database) };
        store.commit("can't create its tables", Durability::Immediate, |write| {
            write.open_table(STATE)?;
            write.open_table(PROGRESS)?;
            write.open_table(VIEWS)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn storage(&self, what: &'static str) -> impl Fn(redb::Error) -> StoreError {
        let path = self.path.to_path_buf();
        move |e| StoreError::Storage { path: path.clone(), what, cause: e.to_string() }
    }

    fn commit<T>(
        &self,
        what: &'static str,
        durability: Durability,
        run: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let commit = || -> Result<T, redb::Error> {
            let mut write = self.database.begin_write()?;
            write.set_durability(durability)?;
            // A durable commit saves what a restart would otherwise rebuild by reading the whole file.
            write.set_quick_repair(matches!(durability, Durability::Immediate));
            let result = run(&write)?;
            write.commit()?;
            Ok(result)
        };
        commit().map_err(self.storage(what))
    }

    /// Runs something that may wait on the disk or on another writer.
    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(EmbeddedStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || run(store)).await {
            Ok(result) => result,
            Err(e) => {
                Err(StoreError::Storage { path: self.path.to_path_buf(), what: "did not finish", cause: e.to_string() })
            }
        }
    }

    fn read_keys(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        let read = || -> Result<Result<Vec<Vec<StoredPiece>>, StoreError>, redb::Error> {
            let read = self.database.begin_read()?;
            let Some(number) = read.open_table(VIEWS)?.get((view.name.as_str(), view.fingerprint.as_str()))? else {
                return Ok(Ok(vec![Vec::new(); keys.len()]));
            };
            let (number, state) = (number.value(), read.open_table(STATE)?);
            let mut all = Vec::with_capacity(keys.len());
            for key in keys {
                let text = key.as_str();
                let mut pieces: Vec<StoredPiece> = Vec::new();
                for slot in state.range((number, text, i32::MIN, i64::MIN)..=(number, text, i32::MAX, i64::MAX))? {
                    let (slot, bytes) = slot?;
                    let (_, _, partition, slot) = slot.value();
                    if let Err(cause) = add_slot(&mut pieces, partition, slot, bytes.value()) {
                        return Ok(Err(self.damaged(view, text, partition, cause)));
                    }
                }
                all.push(pieces);
            }
            Ok(Ok(all))
        };
        read().map_err(self.storage("can't read"))?
    }

    fn fetch_pieces(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError> {
        let fetch = || -> Result<Result<Vec<Option<StoredPiece>>, StoreError>, redb::Error> {
            let read = self.database.begin_read()?;
            let Some(number) = read.open_table(VIEWS)?.get((view.name.as_str(), view.fingerprint.as_str()))? else {
                return Ok(Ok(vec![None; wanted.len()]));
            };
            let (number, state) = (number.value(), read.open_table(STATE)?);
            let mut fetched = Vec::with_capacity(wanted.len());
            for (key, chunks) in wanted {
                let mut pieces = Vec::new();
                for slot in std::iter::once(HEAD).chain(chunks.iter().map(|chunk| i64::from(*chunk))) {
                    let Some(bytes) = state.get((number, key.as_str(), partition, slot))? else { continue };
                    if let Err(cause) = add_slot(&mut pieces, partition, slot, bytes.value()) {
                        return Ok(Err(self.damaged(view, key.as_str(), partition, cause)));
                    }
                }
                fetched.push(pieces.pop());
            }
            Ok(Ok(fetched))
        };
        fetch().map_err(self.storage("can't read"))?
    }

    fn damaged(&self, view: &ViewId, key: &str, partition: i32, cause: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.to_path_buf(),
            view: view.name.clone(),
            key: key.into(),
            partition,
            cause: cause.into(),
        }
    }

    fn write_pieces(&self, view: &ViewId, writes: &[PieceWrite]) -> Result<Vec<WriteOutcome>, StoreError> {
        self.commit("can't write", Durability::None, |transaction| {
            let number = view_number(transaction, view)?;
            let mut state = transaction.open_table(STATE)?;
            let mut outcomes = Vec::with_capacity(writes.len());
            let mut head = Vec::new();
            for write in writes {
                let slot = |slot: i64| (number, write.key.as_str(), write.partition, slot);
                let holds = state.get(slot(HEAD))?.and_then(|head| absorbed(head.value()).map(|(a, _)| a));
                if holds != write.expected || holds.is_some_and(|holds| write.absorbed < holds) {
                    outcomes.push(WriteOutcome::Fenced { holds });
                    continue;
                }
                head.clear();
                head.extend_from_slice(&write.absorbed.to_le_bytes());
                head.extend_from_slice(&write.head);
                state.insert(slot(HEAD), head.as_slice())?;
                for chunk in &write.removed {
                    state.remove(slot(i64::from(*chunk)))?;
                }
                for (chunk, bytes) in &write.chunks {
                    state.insert(slot(i64::from(*chunk)), bytes.as_ref())?;
                }
                outcomes.push(WriteOutcome::Written);
            }
            Ok(outcomes)
        })
    }

    fn count(&self) -> Result<BTreeMap<ViewId, Usage>, redb::Error> {
        let read = self.database.begin_read()?;
        let mut used: BTreeMap<u32, Usage> = BTreeMap::new();
        let mut last = None;
        for entry in read.open_table(STATE)?.iter()? {
            let (slot, bytes) = entry?;
            let (number, key, _, _) = slot.value();
            let usage = used.entry(number).or_default();
            usage.bytes += (key.len() + 16 + bytes.value().len()) as u64;
            if last.as_ref() != Some(&(number, key.to_owned())) {
                usage.keys += 1;
                last = Some((number, key.to_owned()));
            }
        }
        let mut named = BTreeMap::new();
        for entry in read.open_table(VIEWS)?.iter()? {
            let (id, number) = entry?;
            if let Some(usage) = used.get(&number.value()) {
                let (name, fingerprint) = id.value();
                named.insert(ViewId { name: name.into(), fingerprint: fingerprint.into() }, *usage);
            }
        }
        Ok(named)
    }

    fn scan_keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        let scan = || -> Result<Vec<EntityKey>, redb::Error> {
            let read = self.database.begin_read()?;
            let Some(number) = read.open_table(VIEWS)?.get((view.name.as_str(), view.fingerprint.as_str()))? else {
                return Ok(Vec::new());
            };
            let (number, state) = (number.value(), read.open_table(STATE)?);
            let mut keys: Vec<EntityKey> = Vec::new();
            let mut from = after.map(|key| key.as_str().to_owned());
            while keys.len() < limit {
                // Enters the tree anew for each key, so that a key's chunks are stepped over, not through.
                let start = match &from {
                    Some(key) => (number, key.as_str(), i32::MAX, i64::MAX),
                    None => (number, "", i32::MIN, i64::MIN),
                };
                let next = match state.range(start..(number + 1, "", i32::MIN, i64::MIN))?.next() {
                    Some(entry) => entry?.0.value().1.to_owned(),
                    None => break,
                };
                keys.push(EntityKey::from(next.clone()));
                from = Some(next);
            }
            Ok(keys)
        };
        scan().map_err(self.storage("can't list keys"))
    }
}

#[async_trait]
impl OnlineStore for EmbeddedStore {
    async fn read(&self, view: &ViewId, keys: &[EntityKey]) -> Result<Vec<Vec<StoredPiece>>, StoreError> {
        if keys.len() <= INLINE_KEYS {
            return self.read_keys(view, keys);
        }
        let (view, keys) = (view.clone(), keys.to_vec());
        self.blocking(move |store| store.read_keys(&view, &keys)).await
    }

    async fn fetch(
        &self,
        view: &ViewId,
        partition: i32,
        wanted: &[(EntityKey, Vec<u32>)],
    ) -> Result<Vec<Option<StoredPiece>>, StoreError> {
        let (view, wanted) = (view.clone(), wanted.to_vec());
        self.blocking(move |store| store.fetch_pieces(&view, partition, &wanted)).await
    }

    /// The process that writes is the one that would lose: a session never ends.
    async fn session(&self) -> Result<Session, StoreError> {
        Ok(Session::default())
    }

    fn ordered(&self) -> bool {
        true
    }

    async fn write(&self, _: Session, view: &ViewId, writes: Vec<PieceWrite>) -> Result<Vec<WriteOutcome>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let view = view.clone();
        self.blocking(move |store| store.write_pieces(&view, &writes)).await
    }

    async fn progress(&self, view: &ViewId) -> Result<BTreeMap<i32, i64>, StoreError> {
        let read = || -> Result<BTreeMap<i32, i64>, redb::Error> {
            let read = self.database.begin_read()?;
            let Some(number) = read.open_table(VIEWS)?.get((view.name.as_str(), view.fingerprint.as_str()))? else {
                return Ok(BTreeMap::new());
            };
            let number = number.value();
            let progress = read.open_table(PROGRESS)?;
            let of_view = progress.range((number, i32::MIN)..=(number, i32::MAX))?;
            of_view.map(|entry| entry.map(|(key, next)| (key.value().1, next.value())).map_err(Into::into)).collect()
        };
        read().map_err(self.storage("can't read progress"))
    }

    async fn set_progress(
        &self,
        _: Session,
        view: &ViewId,
        partition: i32,
        expected: Option<i64>,
        next_offset: i64,
    ) -> Result<WriteOutcome, StoreError> {
        let view = view.clone();
        self.blocking(move |store| {
            store.commit("can't set progress", Durability::None, |write| {
                let number = view_number(write, &view)?;
                let mut progress = write.open_table(PROGRESS)?;
                let holds = progress.get((number, partition))?.map(|next| next.value());
                if holds.is_some() != expected.is_some() || holds < expected || holds > Some(next_offset) {
                    return Ok(WriteOutcome::Fenced { holds });
                }
                progress.insert((number, partition), next_offset)?;
                Ok(WriteOutcome::Written)
            })
        })
        .await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.blocking(|store| store.commit("can't flush", Durability::Immediate, |_| Ok(()))).await
    }

    async fn keys(&self, view: &ViewId, after: Option<&EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        let (view, after) = (view.clone(), after.cloned());
        self.blocking(move |store| store.scan_keys(&view, after.as_ref(), limit)).await
    }

    async fn usage(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        self.blocking(|store| store.count().map_err(store.storage("can't count"))).await
    }

    async fn views(&self) -> Result<Vec<ViewId>, StoreError> {
        let read = || -> Result<Vec<ViewId>, redb::Error> {
            let views = self.database.begin_read()?.open_table(VIEWS)?;
            let all = views.iter()?.map(|entry| {
                let (id, _) = entry?;
                let (name, fingerprint) = id.value();
                Ok(ViewId { name: name.into(), fingerprint: fingerprint.into() })
            });
            all.collect()
        };
        read().map_err(self.storage("can't list views"))
    }

    async fn drop_partitions(&self, dropped: &Dropped) -> Result<(), StoreError> {
        let dropped = dropped.clone();
        let taken = self.blocking(move |store| {
            store.commit("can't drop partitions", Durability::None, |write| {
                for (view, dropped) in &dropped {
                    let id = (view.name.as_str(), view.fingerprint.as_str());
                    let Some(number) = write.open_table(VIEWS)?.get(id)?.map(|number| number.value()) else {
                        continue;
                    };
                    let mut progress = write.open_table(PROGRESS)?;
                    for (partition, believed) in dropped {
                        if progress.get((number, *partition))?.map(|next| next.value()) != *believed {
                            return Ok(Some(view.name.clone()));
                        }
                    }
                    for partition in dropped.keys() {
                        progress.remove((number, *partition))?;
                    }
                    let all = (number, "", i32::MIN, i64::MIN)..(number + 1, "", i32::MIN, i64::MIN);
                    let mut state = write.open_table(STATE)?;
                    state.retain_in(all, |(_, _, partition, _), _| !dropped.contains_key(&partition))?;
                }
                Ok(None)
            })
        });
        match taken.await? {
            Some(view) => Err(StoreError::TakenUp { at: self.path.display().to_string(), view }),
            None => Ok(()),
        }
    }

    async fn drop_view(&self, view: &ViewId) -> Result<(), StoreError> {
        let view = view.clone();
        self.blocking(move |store| {
            store.commit("can't drop a view", Durability::None, |write| {
                let id = (view.name.as_str(), view.fingerprint.as_str());
                let Some(number) = write.open_table(VIEWS)?.remove(id)?.map(|n| n.value()) else {
                    return Ok(());
                };
                let first = (number, "", i32::MIN, i64::MIN);
                write.open_table(STATE)?.retain_in(first..(number + 1, "", i32::MIN, i64::MIN), |_, _| false)?;
                write.open_table(PROGRESS)?.retain_in((number, i32::MIN)..=(number, i32::MAX), |_, _| false)?;
                Ok(())
            })
        })
        .await
    }
}

/// The number of a view; a new view gets the next one.
fn view_number(write: &WriteTransaction, view: &ViewId) -> Result<u32, redb::Error> {
    let mut views = write.open_table(VIEWS)?;
    let id = (view.name.as_str(), view.fingerprint.as_str());
    if let Some(number) = views.get(id)? {
        return Ok(number.value());
    }
    let numbers = views.iter()?.map(|entry| Ok(entry?.1.value()));
    let next = numbers.collect::<Result<Vec<u32>, redb::Error>>()?.into_iter().max().map_or(0, |last| last + 1);
    views.insert(id, next)?;
    Ok(next)
}

/// A head's absorbed offset and the writer's bytes.
fn absorbed(head: &[u8]) -> Option<(i64, &[u8])> {
    let (absorbed, rest) = head.split_first_chunk::<8>()?;
    Some((i64::from_le_bytes(*absorbed), rest))
}

/// Adds a stored slot to a key's pieces; slots come in order, a piece's head first.
fn add_slot(pieces: &mut Vec<StoredPiece>, partition: i32, slot: i64, bytes: &[u8]) -> Result<(), &'static str> {
    if slot == HEAD {
        let (absorbed, head) = absorbed(bytes).ok_or("its head is shorter than an offset")?;
        let head = Bytes::copy_from_slice(head);
        pieces.push(StoredPiece { partition, absorbed, head, chunks: Vec::new() });
        return Ok(());
    }
    let number = u32::try_from(slot).map_err(|_| "a chunk has no number")?;
    match pieces.last_mut().filter(|piece| piece.partition == partition) {
        Some(piece) => piece.chunks.push((number, Bytes::copy_from_slice(bytes))),
        None => return Err("a chunk has no head"),
    }
    Ok(())
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
