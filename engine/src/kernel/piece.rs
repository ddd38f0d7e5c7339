//! The state of one entity key from one source partition.

use std::sync::Arc;

use super::KernelError;
use super::chunk::{Chunk, RowChunks};
use super::compile::Kernel;
use super::fold::State;
use super::tile::{Tile, floor};

/// The state of one key and one source partition: a small head, and bounded chunks of rows, tiles and id hashes.
///
/// Trimming is lazy: a chunk goes when all of it is older than the cut. Reads never see the difference. Chunks of rows and
/// tiles may be left in the store ([`Chunk::data`]).
#[derive(Debug, Clone)]
pub struct Piece {
    pub(super) partition: i32,
    /// The last offset folded in.
    pub(super) absorbed: Option<i64>,
    /// The newest and the oldest event time ever folded in, also of rows that were late.
    pub(super) newest: Option<i64>,
    pub(super) oldest: Option<i64>,
    /// The newest event time that is held neither as a row nor in a tile.
    pub(super) complete_after: Option<i64>,
    /// What was trimmed, as states parallel to the kernel's base folds; there from the first trimmed row on.
    pub(super) base: Option<Arc<Vec<State>>>,
    pub(super) next_chunk: u32,
    pub(super) rows: RowChunks,
    /// Sealed tiles, ascending.
    pub(super) tiles: Vec<Chunk<Vec<Arc<Tile>>>>,
    /// Hashes of the event ids in the base, in no order.
    pub(super) hashes: Vec<Chunk<Vec<u64>>>,
    /// Chunks that went since the last write.
    pub(super) removed: Vec<u32>,
}

impl Piece {
    /// The last source offset that the piece has absorbed; `None` before the first.
    pub fn absorbed(&self) -> Option<i64> {
        self.absorbed
    }

    /// The newest event time ever folded in, in microseconds.
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// How many events are held as rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    pub(super) fn new_chunk(&mut self) -> u32 {
        let id = self.next_chunk;
        self.next_chunk += 1;
        id
    }

    /// Which chunk, by index, has the tile that starts at an instant, if it is there.
    pub(super) fn chunk_of_tile(&self, start: i64) -> Option<usize> {
        let chunk = self.tiles.partition_point(|chunk| chunk.span.first <= start).checked_sub(1)?;
        (start <= self.tiles.get(chunk)?.span.last).then_some(chunk)
    }

    fn tile(&self, start: i64) -> Result<Option<&Arc<Tile>>, KernelError> {
        let Some(chunk) = self.chunk_of_tile(start).and_then(|chunk| self.tiles.get(chunk)) else { return Ok(None) };
        let tiles = chunk.data()?;
        Ok(tiles.binary_search_by_key(&start, |tile| tile.start).ok().and_then(|place| tiles.get(place)))
    }

    /// Whether the piece holds this event already, as a row, in a tile or in the base.
    pub(super) fn knows(
        &self,
        kernel: &Kernel,
        identity: &(i64, super::fold::value::Value),
    ) -> Result<bool, KernelError> {
        if self.rows.holds(identity)? {
            return Ok(true);
        }
        let hash = std::cell::LazyCell::new(|| super::identity::hash(identity));
        if let Some(length) = kernel.spec.tile
            && let Some(tile) = self.tile(floor(identity.0, length))?
            && tile.hashes.binary_search(&hash).is_ok()
        {
            return Ok(true);
        }
        if self.complete_after.is_some_and(|complete_after| identity.0 <= complete_after) {
            for chunk in &self.hashes {
                if chunk.data()?.contains(&hash) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The newest event time that an exact read must not reach back to, whatever was trimmed lazily or not.
    pub(super) fn complete_after(&self, kernel: &Kernel) -> Result<Option<i64>, KernelError> {
        let keep_from = kernel.keep_from(self)?;
        let row = self.rows.newest_before(keep_from)?;
        let mut tile = None;
        for chunk in self.tiles.iter().take_while(|chunk| chunk.span.first < keep_from) {
            let before = chunk.data()?.iter().take_while(|tile| tile.start < keep_from);
            tile = tile.max(before.map(|tile| tile.max).max());
        }
        Ok(self.complete_after.max(row).max(tile))
    }
}

impl Kernel {
    /// A piece that has seen nothing.
    pub fn empty_piece(&self, partition: i32) -> Piece {
        Piece {
            partition,
            absorbed: None,
            newest: None,
            oldest: None,
            complete_after: None,
            base: None,
            next_chunk: 0,
            rows: RowChunks::default(),
            tiles: Vec::new(),
            hashes: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Event times before this are trimmed: before the cut, and before the latest rows that ROWS frames need.
    pub(super) fn keep_from(&self, piece: &Piece) -> Result<i64, KernelError> {
        let cut = self.cut(piece.newest);
        Ok(match self.keep_rows {
            0 => cut,
            // All rows of that instant stay, so that a duplicate of one of them is still known as one.
            needed => piece.rows.time_from_end(needed, self.now(piece.newest))?.map_or(i64::MIN, |time| time.min(cut)),
        })
    }

    /// No later than [`Kernel::keep_from`] will be once there are rows of these event times, which ascend, if `newest` is the newest of all.
    /// Of rows of one time one counts: the others may be duplicates.
    pub(super) fn keep_from_with(&self, times: &[i64], newest: Option<i64>) -> i64 {
        if self.keep_rows == 0 {
            return self.cut(newest);
        }
        let (until, mut left, mut last) = (self.now(newest), self.keep_rows, None);
        for time in times.iter().rev().filter(|time| **time <= until) {
            left -= usize::from(last != Some(time));
            if left == 0 {
                return self.cut(newest).min(*time);
            }
            last = Some(time);
        }
        i64::MIN
    }

    /// The earliest that now can be when this is the newest event time.
    pub(super) fn now(&self, newest: Option<i64>) -> i64 {
        newest.map_or(i64::MIN, |newest| newest.saturating_sub(self.spec.ahead))
    }

    /// How far back reads reach when this is the newest event time.
    pub(super) fn cut(&self, newest: Option<i64>) -> i64 {
        let (Some(retention), Some(newest)) = (self.retention, newest) else {
            return i64::MIN;
        };
        let cut = newest.saturating_sub(retention);
        self.spec.tile.map_or(cut, |tile| floor(cut, tile))
    }

    /// Event times before this are in tiles: all but the newest two, and those that a frame's end may cut.
    pub(super) fn sealed_before(&self, newest: Option<i64>) -> Option<i64> {
        let (tile, newest) = (self.spec.tile?, newest?);
        Some(floor(newest.saturating_sub(self.open), tile).saturating_sub(tile))
    }
}
