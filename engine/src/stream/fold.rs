//! One batch into one view: row stage, group by key, load, fold, write fenced.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, UInt32Array};

use super::cache::Cache;
use super::error::StreamError;
use crate::kernel::{EncodingError, EntityKey, EventRows, FoldCounts, KernelError, Piece};
use crate::online::{OnlineStore, PieceWrite, Session, StoredPiece, WriteOutcome};
use crate::plan::FeatureView;
use crate::plan::rows::{FailedEvent, ViewRows};
use crate::request::ReadError;

/// How often a write that another writer got ahead of is folded anew before giving up.
const FENCED_ATTEMPTS: usize = 8;

/// A view that a worker keeps fresh.
#[derive(Debug)]
pub struct ViewFold {
    pub view: Arc<FeatureView>,
    cache: Cache,
}

/// Where a fold writes to.
#[derive(Debug, Clone, Copy)]
pub struct Writing<'a> {
    pub store: &'a dyn OnlineStore,
    pub session: Session,
}

/// What became of a batch's events in a view.
#[derive(Debug, Default)]
pub struct Folded {
    pub counts: FoldCounts,
    pub null_keys: usize,
    pub failed: Vec<FailedEvent>,
}

impl ViewFold {
    pub fn new(view: Arc<FeatureView>, cache_bytes: usize) -> Self {
        Self { view, cache: Cache::new(cache_bytes) }
    }

    /// Forgets what is in memory of a partition, or of all.
    pub fn forget(&mut self, partition: Option<i32>) {
        match partition {
            Some(partition) => self.cache.forget(partition),
            None => self.cache.clear(),
        }
    }

    /// Folds a batch of one partition and stores the result. On an error nothing is half done: the caller may try the
    /// same batch again.
    pub async fn apply(
        &mut self,
        to: &Writing<'_>,
        partition: i32,
        events: &RecordBatch,
    ) -> Result<Folded, StreamError> {
        let rows = self.view.rows(events).map_err(|e| StreamError::View { view: self.view.name.clone(), source: e })?;
        let mut folded = Folded { failed: rows.failed.clone(), ..Folded::default() };
        let (mut groups, null_keys) =
            group(&rows, partition).map_err(|source| StreamError::Kernel { view: self.view.name.clone(), source })?;
        folded.null_keys = null_keys;
        for _ in 0..FENCED_ATTEMPTS {
            if groups.is_empty() {
                return Ok(folded);
            }
            groups = self.attempt(to, partition, groups, &mut folded.counts).await?;
        }
        Err(StreamError::Fenced { view: self.view.name.clone(), partition })
    }

    /// Folds and writes; gives back the groups that a stale piece kept from being written.
    async fn attempt(
        &mut self,
        to: &Writing<'_>,
        partition: i32,
        groups: Vec<(EntityKey, EventRows)>,
        counts: &mut FoldCounts,
    ) -> Result<Vec<(EntityKey, EventRows)>, StreamError> {
        let mut pieces = self.load(to.store, partition, &groups).await?;
        let kernel = |source| StreamError::Kernel { view: self.view.name.clone(), source };
        let idle_after = self.view.kernel.idle_after().map(|micros| Duration::from_micros(micros.unsigned_abs()));
        let forgets = idle_after.is_some() && to.store.forgets();
        let mut writes = Vec::with_capacity(groups.len());
        let mut folds = Vec::with_capacity(groups.len());
        for ((key, rows), piece) in groups.iter().zip(&mut pieces) {
            let expected = piece.absorbed();
            let fold = self.view.kernel.fold(piece, rows).map_err(kernel)?;
            let Some(absorbed) = piece.absorbed().filter(|_| piece.absorbed() != expected) else {
                folds.push((fold, None));
                continue;
            };
            let delta = self.view.kernel.encode_changes(piece).map_err(kernel)?;
            folds.push((fold, Some(writes.len())));
            writes.push(PieceWrite {
                key: key.clone(),
                partition,
                expected,
                absorbed,
                head: delta.head.into(),
                chunks: delta.chunks.into_iter().map(|(id, bytes)| (id, bytes.into())).collect(),
                removed: delta.removed,
                idle_after,
            });
        }
        let expected: Vec<Option<i64>> = writes.iter().map(|write| write.expected).collect();
        let outcomes =
            if writes.is_empty() { vec![] } else { to.store.write(to.session, &self.view.id(), writes).await? };
        let mut fenced = vec![];
        for ((group, mut piece), (fold, write)) in groups.into_iter().zip(pieces).zip(folds) {
            match write.and_then(|i| outcomes.get(i).zip(expected.get(i))) {
                // Another writer got ahead: what it wrote is loaded, and what is new is folded into that.
                Some((WriteOutcome::Fenced { holds }, expected)) if holds >= expected => fenced.push(group),
                // Or the key was idle, and is forgotten. (If all is gone, progress is too, and the commit finds out.)
                Some((WriteOutcome::Fenced { holds: None }, _)) if forgets => fenced.push(group),
                Some((WriteOutcome::Fenced { .. }, _)) => {
                    return Err(StreamError::StateLost { view: self.view.name.clone(), partition });
                }
                Some((WriteOutcome::Written, _)) | None => {
                    add(counts, &fold);
                    self.view.kernel.forget_settled(&mut piece);
                    self.cache.put(group.0, partition, piece);
                }
            }
        }
        Ok(fenced)
    }

    /// The groups' pieces, each with what its rows need of it: from the cache, and the rest from the store.
    async fn load(
        &mut self,
        store: &dyn OnlineStore,
        partition: i32,
        groups: &[(EntityKey, EventRows)],
    ) -> Result<Vec<Piece>, StreamError> {
        /// What a piece needs may show only once some of it is there; and another writer may get ahead in between.
        const ROUNDS: usize = 16;
        let kernel = &self.view.kernel;
        let mut pieces: Vec<Option<Piece>> = groups.iter().map(|(key, _)| self.cache.take(key, partition)).collect();
        for _ in 0..ROUNDS {
            let needs = groups.iter().zip(&pieces).enumerate().filter_map(|(i, ((key, rows), piece))| {
                let needs = piece.as_ref().map_or(vec![], |piece| kernel.needs(piece, rows));
                (piece.is_none() || !needs.is_empty()).then(|| (i, (key.clone(), needs)))
            });
            let (places, wanted): (Vec<usize>, Vec<_>) = needs.unzip();
            if wanted.is_empty() {
                return Ok(pieces.into_iter().flatten().collect());
            }
            let fetched = store.fetch(&self.view.id(), partition, &wanted).await?;
            for ((place, (key, needs)), stored) in places.into_iter().zip(&wanted).zip(fetched) {
                let Some(piece) = pieces.get_mut(place) else { continue };
                *piece = Some(self.supplied(piece.take(), partition, (key, needs), stored, store.forgets())?);
            }
        }
        Err(StreamError::Fenced { view: self.view.name.clone(), partition })
    }

    /// A piece with what was fetched of it; anew from its head, if it isn't the one that is stored.
    fn supplied(
        &self,
        held: Option<Piece>,
        partition: i32,
        (key, needs): (&EntityKey, &[u32]),
        stored: Option<StoredPiece>,
        forgets: bool,
    ) -> Result<Piece, StreamError> {
        let (view, kernel) = (&self.view, &self.view.kernel);
        let damaged =
            |source| StreamError::State(ReadError::State { view: view.name.clone(), key: key.clone(), source });
        let Some(stored) = stored else {
            return match held {
                // The key was idle, and is forgotten.
                Some(_) if !forgets => Err(StreamError::StateLost { view: view.name.clone(), partition }),
                _ => Ok(kernel.empty_piece(partition)),
            };
        };
        let mut piece = match held {
            Some(piece) if piece.absorbed() == Some(stored.absorbed) => piece,
            Some(piece) if piece.absorbed() > Some(stored.absorbed) => {
                return Err(StreamError::StateLost { view: view.name.clone(), partition });
            }
            _ => return kernel.decode_head(partition, &stored.head).map_err(damaged),
        };
        for (id, bytes) in &stored.chunks {
            kernel.supply(&mut piece, *id, bytes).map_err(damaged)?;
        }
        if let Some(id) = needs.iter().find(|id| !stored.chunks.iter().any(|(there, _)| there == *id)) {
            return Err(damaged(EncodingError::Corrupt { offset: 0, message: format!("chunk {id} is missing") }));
        }
        Ok(piece)
    }
}

fn add(counts: &mut FoldCounts, more: &FoldCounts) {
    counts.folded += more.folded;
    counts.skipped += more.skipped;
    counts.late += more.late;
    counts.duplicate += more.duplicate;
}

type Groups = (Vec<(EntityKey, EventRows)>, usize);

/// The rows of each key, in offset order, and how many rows have no key.
fn group(rows: &ViewRows, partition: i32) -> Result<Groups, KernelError> {
    let mut keyed: Vec<(&EntityKey, u32)> =
        rows.keys.iter().zip(0..).filter_map(|(key, row)| Some((key.as_ref()?, row))).collect();
    let null_keys = rows.keys.len() - keyed.len();
    // Stores write neighbouring keys together.
    keyed.sort_unstable();
    let all = EventRows {
        times: rows.times.clone(),
        partition,
        offsets: rows.offsets.clone(),
        ids: rows.ids.clone(),
        columns: rows.columns.clone(),
    };
    let all = all.take(&UInt32Array::from_iter_values(keyed.iter().map(|(_, row)| *row)))?;
    let mut start = 0;
    let groups = keyed.chunk_by(|a, b| a.0 == b.0).filter_map(|same| {
        let (key, _) = same.first()?;
        let rows = all.slice(start, same.len());
        start += same.len();
        Some(((*key).clone(), rows))
    });
    Ok((groups.collect(), null_keys))
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
