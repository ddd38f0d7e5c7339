//! Some of a batch's keys: load, fold, write fenced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::StreamError;
use crate::kernel::{EncodingError, EntityKey, EventRows, FoldCounts, Piece};
use crate::online::{OnlineStore, PieceWrite, Session, StoredPiece, WriteOutcome};
use crate::plan::FeatureView;
use crate::request::ReadError;

/// Folds some keys of one view and one partition.
#[derive(Debug)]
pub(super) struct Share {
    pub view: Arc<FeatureView>,
    pub to: Writing,
    pub partition: i32,
    /// Heads that aren't known are taken for ones that aren't there: if they are, the write is fenced.
    pub fresh: bool,
}

/// Where a fold writes to.
#[derive(Debug, Clone)]
pub struct Writing {
    pub store: Arc<dyn OnlineStore>,
    pub session: Session,
}

/// A key and its rows of a batch, in offset order.
pub(super) type Group = (EntityKey, EventRows);

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
    /// As it is stored, or about to be.
    head: Option<Bytes>,
}

impl Share {
    /// `heads` are the groups' heads where they are known.
    pub async fn run(self, groups: Vec<Group>, heads: Vec<Option<Bytes>>) -> Result<Done, StreamError> {
        let partition = self.partition;
        let mut pieces = self.load(&groups, heads).await?;
        let kernel = |source| StreamError::Kernel { view: self.view.name.clone(), source };
        let idle_after = self.view.kernel.idle_after().map(|micros| Duration::from_micros(micros.unsigned_abs()));
        let forgets = idle_after.is_some() && self.to.store.forgets();
        let mut writes = Vec::with_capacity(groups.len());
        let mut folds = Vec::with_capacity(groups.len());
        for ((key, rows), Loaded { piece, head }) in groups.iter().zip(&mut pieces) {
            let expected = piece.absorbed();
            let fold = self.view.kernel.fold(piece, rows).map_err(kernel)?;
            let Some(absorbed) = piece.absorbed().filter(|_| piece.absorbed() != expected) else {
                folds.push((fold, None));
                continue;
            };
            let delta = self.view.kernel.encode_changes(piece).map_err(kernel)?;
            folds.push((fold, Some(writes.len())));
            let written = Bytes::from(delta.head.into_boxed_slice());
            *head = Some(written.clone());
            writes.push(PieceWrite {
                key: key.clone(),
                partition,
                expected,
                absorbed,
                head: written,
                chunks: delta.chunks.into_iter().map(|(id, bytes)| (id, bytes.into())).collect(),
                removed: delta.removed,
                idle_after,
            });
        }
        let heads: Vec<Option<Bytes>> = pieces.into_iter().map(|loaded| loaded.head).collect();
        let expected: Vec<Option<i64>> = writes.iter().map(|write| write.expected).collect();
        let outcomes = match writes.is_empty() {
            true => vec![],
            false => self.to.store.write(self.to.session, &self.view.id(), writes).await?,
        };
        let mut done = Done::default();
        for ((group, head), (fold, write)) in groups.into_iter().zip(heads).zip(folds) {
            match write.and_then(|i| outcomes.get(i).zip(expected.get(i))) {
                // Another writer got ahead: what it wrote is loaded, and what is new is folded into that.
                Some((WriteOutcome::Fenced { holds }, expected)) if holds >= expected => done.fenced.push(group),
                // Or the key was idle, and is forgotten. (If all is gone, progress is too, and the commit finds out.)
                Some((WriteOutcome::Fenced { holds: None }, _)) if forgets => done.fenced.push(group),
                Some((WriteOutcome::Fenced { .. }, _)) => return Err(self.lost()),
                Some((WriteOutcome::Written, _)) | None => {
                    done.counts += fold;
                    done.heads.extend(head.map(|head| (group.0, head)));
                }
            }
        }
        Ok(done)
    }

    /// The groups' pieces, each with what its rows need of it: what isn't known comes from the store.
    async fn load(&self, groups: &[Group], heads: Vec<Option<Bytes>>) -> Result<Vec<Loaded>, StreamError> {
        /// What a piece needs may show only once some of it is there; and another writer may get ahead in between.
        const ROUNDS: usize = 16;
        let kernel = &self.view.kernel;
        let mut pieces = Vec::with_capacity(groups.len());
        for ((key, _), head) in groups.iter().zip(heads) {
            pieces.push(match head {
                Some(head) => Some(self.decoded(key, head)?),
                None if self.fresh => Some(Loaded { piece: kernel.empty_piece(self.partition), head: None }),
                None => None,
            });
        }
        for _ in 0..ROUNDS {
            let needs = groups.iter().zip(&pieces).enumerate().filter_map(|(i, ((key, rows), loaded))| {
                let needs = loaded.as_ref().map_or(vec![], |loaded| kernel.needs(&loaded.piece, rows));
                (loaded.is_none() || !needs.is_empty()).then(|| (i, (key.clone(), needs)))
            });
            let (places, wanted): (Vec<usize>, Vec<_>) = needs.unzip();
            if wanted.is_empty() {
                return Ok(pieces.into_iter().flatten().collect());
            }
            let fetched = self.to.store.fetch(&self.view.id(), self.partition, &wanted).await?;
            for ((place, (key, needs)), stored) in places.into_iter().zip(&wanted).zip(fetched) {
                let Some(piece) = pieces.get_mut(place) else { continue };
                *piece = Some(self.supplied(piece.take(), (key, needs), stored)?);
            }
        }
        Err(StreamError::Fenced { view: self.view.name.clone(), partition: self.partition })
    }

    /// A piece with what was fetched of it; anew from its head, if it isn't the one that is stored.
    fn supplied(
        &self,
        held: Option<Loaded>,
        (key, needs): (&EntityKey, &[u32]),
        stored: Option<StoredPiece>,
    ) -> Result<Loaded, StreamError> {
        let kernel = &self.view.kernel;
        let Some(stored) = stored else {
            return match held {
                // The key was idle, and is forgotten.
                Some(_) if !self.to.store.forgets() => Err(self.lost()),
                _ => Ok(Loaded { piece: kernel.empty_piece(self.partition), head: None }),
            };
        };
        let mut loaded = match held {
            Some(held) if held.piece.absorbed() == Some(stored.absorbed) => held,
            Some(held) if held.piece.absorbed() > Some(stored.absorbed) => return Err(self.lost()),
            _ => return self.decoded(key, stored.head),
        };
        for (id, bytes) in &stored.chunks {
            kernel.supply(&mut loaded.piece, *id, bytes).map_err(|source| self.damaged(key, source))?;
        }
        if let Some(id) = needs.iter().find(|id| !stored.chunks.iter().any(|(there, _)| there == *id)) {
            let missing = EncodingError::Corrupt { offset: 0, message: format!("chunk {id} is missing") };
            return Err(self.damaged(key, missing));
        }
        Ok(loaded)
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
