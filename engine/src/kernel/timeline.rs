//! What is read from: a key's events in order, put together from its pieces.

use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
#[cfg(test)]
use arrow::array::Array;
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::take;
use arrow::datatypes::{Int32Type, Int64Type};

use super::KernelError;
use super::compile::Kernel;
use super::fold::{Order, Partitions, State};
use super::identity::{Identities, hash, identity};
use super::piece::Piece;
use super::rows::EventRows;
use super::tile::Tile;

/// One key's events, ascending by (event time, partition, offset), and what stands for older ones.
#[derive(Debug, Clone)]
pub struct Timeline {
    pub(super) times: Int64Array,
    pub(super) partitions: Int32Array,
    pub(super) offsets: Int64Array,
    pub(super) columns: Vec<ArrayRef>,
    /// Sealed tiles of all pieces, ascending by start.
    pub(super) tiles: Vec<Arc<Tile>>,
    /// Parallel to the kernel's base folds.
    pub(super) base: Option<Arc<Vec<State>>>,
    /// The newest event time that is held neither as a row nor in a tile.
    pub(super) complete_after: Option<i64>,
    pub(super) oldest: Option<i64>,
}

impl Timeline {
    /// How many events are held as rows.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The newest event time, in microseconds; `None` for a key never seen.
    pub fn newest(&self) -> Option<i64> {
        let row = self.times.values().last().copied();
        row.max(self.tiles.iter().map(|tile| tile.max).max()).max(self.complete_after)
    }

    pub(super) fn order(&self) -> Order<'_> {
        Order {
            times: self.times.values(),
            partitions: Partitions::Each(self.partitions.values()),
            offsets: self.offsets.values(),
        }
    }

    fn take(self, rows: Vec<u32>) -> Result<Self, KernelError> {
        let rows = UInt32Array::from(rows);
        Ok(Timeline {
            times: take(&self.times, &rows, None)?.as_primitive::<Int64Type>().clone(),
            partitions: take(&self.partitions, &rows, None)?.as_primitive::<Int32Type>().clone(),
            offsets: take(&self.offsets, &rows, None)?.as_primitive::<Int64Type>().clone(),
            columns: self.columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?,
            ..self
        })
    }

    /// Sorts the rows and drops duplicates by id: the first in the order wins. Rows that `elsewhere` knows, as
    /// hashes, go as well.
    fn ordered(self, ids: Option<&ArrayRef>, elsewhere: &HashSet<u64, RandomState>) -> Result<Self, KernelError> {
        let (times, partitions, offsets) = (self.times.values(), self.partitions.values(), self.offsets.values());
        let place = |row: usize| (times[row], partitions[row], offsets[row]);
        let sorted = (1..times.len()).all(|row| place(row - 1) <= place(row));
        if sorted && ids.is_none() {
            return Ok(self);
        }
        let mut rows: Vec<u32> = (0..times.len() as u32).collect();
        rows.sort_by_key(|row| place(*row as usize));
        if ids.is_some() {
            let mut seen = Identities::default();
            rows.retain(|row| {
                identity(times, ids, *row as usize).is_none_or(|identity| {
                    let known = !elsewhere.is_empty() && elsewhere.contains(&hash(&identity));
                    !known && seen.insert(identity)
                })
            });
        }
        if sorted && rows.len() == times.len() { Ok(self) } else { self.take(rows) }
    }
}

impl Kernel {
    /// Merges a key's pieces into what is read from.
    pub fn timeline<'a>(&self, pieces: impl IntoIterator<Item = &'a Piece>) -> Result<Timeline, KernelError> {
        let pieces: Vec<&Piece> = pieces.into_iter().collect();
        let blocks = pieces.iter().flat_map(|piece| piece.rows.iter().map(|chunk| chunk.data()));
        let blocks: Vec<&EventRows> = blocks.collect::<Result<_, _>>()?;
        let mut timeline = self.empty_timeline();
        let mut ids = None;
        if !blocks.is_empty() {
            let rows = EventRows::concat(&blocks)?;
            let partitions = blocks.iter().flat_map(|block| std::iter::repeat_n(block.partition, block.len()));
            timeline.partitions = Int32Array::from_iter_values(partitions);
            (timeline.times, timeline.offsets, timeline.columns, ids) =
                (rows.times, rows.offsets, rows.columns, rows.ids);
        }
        for piece in &pieces {
            for chunk in &piece.tiles {
                timeline.tiles.extend(chunk.data()?.iter().cloned());
            }
            timeline.complete_after = timeline.complete_after.max(piece.complete_after(self)?);
            timeline.oldest = timeline.oldest.into_iter().chain(piece.oldest).min();
            timeline.base = match (timeline.base.take(), &piece.base) {
                (Some(mut merged), Some(base)) => {
                    self.merge_bases(Arc::make_mut(&mut merged).as_mut_slice(), base);
                    Some(merged)
                }
                (merged, base) => merged.or_else(|| base.clone()),
            };
        }
        timeline.tiles.sort_by_key(|tile| tile.start);
        // Within a piece rows are ordered, and each event is there once.
        if pieces.len() < 2 {
            return Ok(timeline);
        }
        let hashes = |piece: &&Piece| {
            let tiles = piece.tiles.iter().filter_map(|chunk| chunk.data.as_ref()).flatten();
            let base = piece.hashes.iter().filter_map(|chunk| chunk.data.as_ref()).flatten().copied();
            tiles.flat_map(|tile| tile.hashes.clone()).chain(base).collect::<Vec<_>>()
        };
        let elsewhere: HashSet<u64, RandomState> =
            if ids.is_some() { pieces.iter().flat_map(hashes).collect() } else { HashSet::default() };
        timeline.ordered(ids.as_ref(), &elsewhere)
    }

    /// A timeline of every row of one key: what the offline side is held against. Rows of any partitions, in any order. Parallel
    /// arrays; rows with the event time and id of another count once.
    #[cfg(test)]
    pub fn timeline_from_rows(
        &self,
        times: Int64Array,
        partitions: Int32Array,
        offsets: Int64Array,
        ids: Option<ArrayRef>,
        columns: Vec<ArrayRef>,
    ) -> Result<Timeline, KernelError> {
        self.check_columns(times.len(), ids.as_ref(), &columns)?;
        if partitions.len() != times.len() || offsets.len() != times.len() {
            return Err(KernelError::Rows(format!(
                "{} event times, {} partitions and {} offsets: expected as many of each",
                times.len(),
                partitions.len(),
                offsets.len()
            )));
        }
        if times.null_count() + partitions.null_count() + offsets.null_count() > 0 {
            return Err(KernelError::Rows("an event time, a partition or an offset is NULL".to_owned()));
        }
        let oldest = times.values().iter().min().copied();
        let timeline = Timeline { times, partitions, offsets, columns, oldest, ..self.empty_timeline() };
        timeline.ordered(ids.as_ref(), &HashSet::default())
    }

    fn empty_timeline(&self) -> Timeline {
        Timeline {
            times: Int64Array::new_null(0),
            partitions: Int32Array::new_null(0),
            offsets: Int64Array::new_null(0),
            columns: self.spec.columns.iter().map(|field| new_empty_array(field.data_type())).collect(),
            tiles: Vec::new(),
            base: None,
            complete_after: None,
            oldest: None,
        }
    }

    fn merge_bases(&self, base: &mut [State], other: &[State]) {
        for ((state, other), fold) in base.iter_mut().zip(other).zip(self.base.iter().flatten()) {
            self.folds[*fold].merge(state, other);
        }
    }
}
