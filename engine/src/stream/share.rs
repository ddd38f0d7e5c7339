//! Some of a batch's keys: load, fold, write fenced.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use bytes::Bytes;

use super::error::StreamError;
use crate::kernel::{Appended, EncodingError, EntityKey, EventRows, FoldCounts, KernelError, Piece};
use crate::online::{OnlineStore, PieceWrite, Session, StoredPiece, WriteOutcome};
use crate::plan::FeatureView;
use crate::request::ReadError;

/// Folds some keys of one view and one partition.
#[derive(Debug)]
pub(super) struct Share {
    pub view: Arc<FeatureView>,
    pub to: Writing,
    pub partition: i32,
    pub batch: Arc<Batch>,
    /// Heads that aren't known are taken for ones that aren't there, as there is nothing before the batch: if they are, the write is fenced.
    pub fresh: bool,
}

/// Where a fold writes to.
#[derive(Debug, Clone)]
pub struct Writing {
    pub store: Arc<dyn OnlineStore>,
    pub session: Session,
}

/// What a share is a part of.
#[derive(Debug)]
pub(super) struct Batch {
    pub rows: EventRows,
    /// The rows, each key's together and in offset order; nothing, where they lie so.
    pub by_key: Option<Vec<u32>>,
}

/// A key, and which of [`Batch::by_key`] are its, or which rows.
pub(super) type Group = (EntityKey, Range<usize>);

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub counts: FoldCounts,
    /// As they are stored now.
    pub heads: Vec<(EntityKey, Bytes)>,
    /// Those that a stale piece kept from being written.
    pub fenced: Vec<Group>,
}

/// A piece to fold into.
struct Loaded {
    piece: Piece,
    /// As it is stored.
    head: Option<Bytes>,
}

/// What becomes of a piece.
struct Folded {
    counts: FoldCounts,
    /// As it is stored, or about to be.
    head: Option<Bytes>,
    write: Option<PieceWrite>,
}

impl Share {
    /// `heads` are the groups' heads where they are known.
    pub async fn run(self, groups: Vec<Group>, heads: Vec<Option<Bytes>>) -> Result<Done, StreamError> {
        let heads = self.heads(&groups, heads).await?;
        let folded = self.fold(&groups, heads).await?;
        let mut writes = Vec::with_capacity(groups.len());
        let mut folds = Vec::with_capacity(groups.len());
        for Folded { counts, head, write } in folded {
            folds.push((counts, head, write.as_ref().map(|write| write.expected)));
            writes.extend(write);
        }
        let outcomes = match writes.is_empty() {
            true => vec![],
            false => self.to.store.write(self.to.session, &self.view.id(), writes).await?,
        };
        let mut outcomes = outcomes.into_iter();
        let forgets = self.idle_after().is_some() && self.to.store.forgets();
        let mut done = Done::default();
        for (group, (counts, head, written)) in groups.into_iter().zip(folds) {
            match written.and_then(|expected| Some((outcomes.next()?, expected))) {
                // Another writer got ahead: what it wrote is loaded, and what is new is folded into that.
                Some((WriteOutcome::Fenced { holds }, expected)) if holds >= expected => done.fenced.push(group),
                // Or the key was idle, and is forgotten. (If all is gone, progress is too, and the commit finds out.)
                Some((WriteOutcome::Fenced { holds: None }, _)) if forgets => done.fenced.push(group),
                Some((WriteOutcome::Fenced { .. }, _)) => return Err(self.lost()),
                Some((WriteOutcome::Written, _)) | None => {
                    done.counts += counts;
                    done.heads.extend(head.map(|head| (group.0, head)));
                }
            }
        }
        Ok(done)
    }

    /// The groups' heads, those that aren't known from the store; none where there is no piece.
    async fn heads(&self, groups: &[Group], mut heads: Vec<Option<Bytes>>) -> Result<Vec<Option<Bytes>>, StreamError> {
        let unknown = groups.iter().zip(&heads).enumerate().filter(|(_, (_, head))| head.is_none() && !self.fresh);
        let (places, wanted): (Vec<usize>, Vec<_>) =
            unknown.map(|(place, ((key, _), _))| (place, (key.clone(), vec![]))).unzip();
        if wanted.is_empty() {
            return Ok(heads);
        }
        let fetched = self.to.store.fetch(&self.view.id(), self.partition, &wanted).await?;
        for (place, stored) in places.into_iter().zip(fetched) {
            if let Some(head) = heads.get_mut(place) {
                *head = stored.map(|stored| stored.head);
            }
        }
        Ok(heads)
    }

    /// Folds every group's rows into its piece: most by adding them to the bytes of its head.
    async fn fold(&self, groups: &[Group], heads: Vec<Option<Bytes>>) -> Result<Vec<Folded>, StreamError> {
        let kernel = |source| StreamError::Kernel { view: self.view.name.clone(), source };
        let all = self.rows(groups).map_err(kernel)?;
        self.view.kernel.check_batch(&all).map_err(kernel)?;
        let mut folded: Vec<Option<Folded>> = Vec::with_capacity(groups.len());
        let (mut left, mut end) = (vec![], 0);
        for (place, ((key, rows), head)) in groups.iter().zip(heads).enumerate() {
            let rows = end..end + rows.len();
            end = rows.end;
            let appended = self.view.kernel.append(head.as_deref(), &all, rows.clone());
            match appended.map_err(|source| self.damaged(key, source))? {
                Some(Appended { head, before, absorbed, counts }) => {
                    let head = Bytes::from(head.into_boxed_slice());
                    let write = self.write(key, (before, absorbed), head.clone());
                    folded.push(Some(Folded { counts, head: Some(head), write: Some(write) }));
                }
                None => {
                    let piece = match head {
                        Some(head) => self.decoded(key, head)?,
                        None => Loaded { piece: self.view.kernel.empty_piece(self.partition), head: None },
                    };
                    left.push((place, key, all.slice(rows.start, rows.len()), piece));
                    folded.push(None);
                }
            }
        }
        self.load(&mut left).await?;
        for (place, key, rows, Loaded { mut piece, head }) in left {
            let before = piece.absorbed();
            let counts = self.view.kernel.fold(&mut piece, &rows).map_err(kernel)?;
            let mut done = Folded { counts, head, write: None };
            if let Some(absorbed) = piece.absorbed().filter(|_| piece.absorbed() != before) {
                let delta = self.view.kernel.encode_changes(&mut piece).map_err(kernel)?;
                let head = Bytes::from(delta.head.into_boxed_slice());
                done.head = Some(head.clone());
                done.write = Some(PieceWrite {
                    chunks: delta.chunks.into_iter().map(|(id, bytes)| (id, bytes.into())).collect(),
                    removed: delta.removed,
                    ..self.write(key, (before, absorbed), head)
                });
            }
            if let Some(place) = folded.get_mut(place) {
                *place = Some(done);
            }
        }
        Ok(folded.into_iter().flatten().collect())
    }

    /// The groups' rows one after the other.
    fn rows(&self, groups: &[Group]) -> Result<EventRows, KernelError> {
        let Batch { rows, by_key } = self.batch.as_ref();
        let ranges = || groups.iter().map(|(_, rows)| rows.clone());
        let places: UInt32Array = match by_key {
            Some(by_key) => ranges().flat_map(|rows| by_key.get(rows).unwrap_or_default()).copied().collect(),
            None => {
                // Those that were fenced lie apart, and come in any order.
                let together = ranges().zip(ranges().skip(1)).all(|(rows, next)| rows.end == next.start);
                if let (true, Some((_, first)), Some((_, last))) = (together, groups.first(), groups.last()) {
                    return Ok(rows.slice(first.start, last.end - first.start));
                }
                ranges().flatten().map(|row| row as u32).collect()
            }
        };
        rows.take(&places)
    }

    /// The write of a piece all of which that changes is its head.
    fn write(&self, key: &EntityKey, (expected, absorbed): (Option<i64>, i64), head: Bytes) -> PieceWrite {
        PieceWrite {
            key: key.clone(),
            partition: self.partition,
            expected,
            absorbed,
            head,
            chunks: vec![],
            removed: vec![],
            whole: self.fresh && expected.is_none(),
            idle_after: self.idle_after(),
        }
    }

    fn idle_after(&self) -> Option<Duration> {
        self.view.kernel.idle_after().map(|micros| Duration::from_micros(micros.unsigned_abs()))
    }

    /// Loads into pieces what their rows need of them from the store.
    async fn load(&self, pieces: &mut [(usize, &EntityKey, EventRows, Loaded)]) -> Result<(), StreamError> {
        /// What a piece needs may show only once some of it is there; and another writer may get ahead in between.
        const ROUNDS: usize = 16;
        let kernel = &self.view.kernel;
        for _ in 0..ROUNDS {
            let needs = pieces.iter().enumerate().filter_map(|(i, (_, key, rows, loaded))| {
                let needs = kernel.needs(&loaded.piece, rows);
                (!needs.is_empty()).then(|| (i, ((*key).clone(), needs)))
            });
            let (places, wanted): (Vec<usize>, Vec<_>) = needs.unzip();
            if wanted.is_empty() {
                return Ok(());
            }
            let fetched = self.to.store.fetch(&self.view.id(), self.partition, &wanted).await?;
            for ((place, (key, needs)), stored) in places.into_iter().zip(&wanted).zip(fetched) {
                let Some((_, _, _, loaded)) = pieces.get_mut(place) else { continue };
                self.supply(loaded, (key, needs), stored)?;
            }
        }
        Err(StreamError::Fenced { view: self.view.name.clone(), partition: self.partition })
    }

    /// Gives a piece what was fetched of it; the piece is read anew from its head, if it isn't the one that is stored.
    fn supply(
        &self,
        loaded: &mut Loaded,
        (key, needs): (&EntityKey, &[u32]),
        stored: Option<StoredPiece>,
    ) -> Result<(), StreamError> {
        let kernel = &self.view.kernel;
        let Some(stored) = stored else {
            if !self.to.store.forgets() {
                return Err(self.lost());
            }
            // The key was idle, and is forgotten.
            *loaded = Loaded { piece: kernel.empty_piece(self.partition), head: None };
            return Ok(());
        };
        let held = loaded.piece.absorbed();
        if held > Some(stored.absorbed) {
            return Err(self.lost());
        }
        if held != Some(stored.absorbed) {
            *loaded = self.decoded(key, stored.head)?;
            return Ok(());
        }
        for (id, bytes) in &stored.chunks {
            kernel.supply(&mut loaded.piece, *id, bytes).map_err(|source| self.damaged(key, source))?;
        }
        match needs.iter().find(|id| !stored.chunks.iter().any(|(there, _)| there == *id)) {
            Some(id) => {
                let missing = EncodingError::Corrupt { offset: 0, message: format!("chunk {id} is missing") };
                Err(self.damaged(key, missing))
            }
            None => Ok(()),
        }
    }

    fn decoded(&self, key: &EntityKey, head: Bytes) -> Result<Loaded, StreamError> {
        let piece = self.view.kernel.decode_head(self.partition, &head).map_err(|source| self.damaged(key, source))?;
        Ok(Loaded { piece, head: Some(head) })
    }

    fn damaged(&self, key: &EntityKey, source: EncodingError) -> StreamError {
        StreamError::State(ReadError::State { view: self.view.name.clone(), key: key.clone(), source })
    }

    fn lost(&self) -> StreamError {
        StreamError::StateLost { view: self.view.name.clone(), partition: self.partition }
    }
}
