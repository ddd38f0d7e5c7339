//! Folding events into a piece.

use std::sync::Arc;

use arrow::array::{Array, UInt32Array};

use super::KernelError;
use super::chunk::{Chunk, Span, Spanned, remove, settle, target_of};
use super::compile::Kernel;
use super::fold::Input;
use super::identity::{Identities, hash, identity};
use super::piece::Piece;
use super::rows::EventRows;
use super::tile::{Tile, floor};

/// The most tiles in a chunk. (Few in tests, which meet more edges then.)
pub(super) const CHUNK_TILES: usize = if cfg!(test) { 8 } else { 64 };
/// The newest chunk goes into the one before once it has so many tiles.
pub(super) const TAIL_TILES: usize = if cfg!(test) { 3 } else { 8 };
/// The most id hashes in a chunk.
pub(super) const CHUNK_HASHES: usize = 2048;

/// What became of the rows of one call to [`Kernel::fold`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FoldCounts {
    /// Rows that count from now on, or did until a later one of the batch put them out of reach.
    pub folded: usize,
    /// Rows that the piece had absorbed before.
    pub skipped: usize,
    /// Rows that came when they were older than anything that a read reaches: dropped.
    pub late: usize,
    /// Rows with the event time and id of another row: dropped.
    pub duplicate: usize,
}

impl std::ops::AddAssign for FoldCounts {
    fn add_assign(&mut self, more: Self) {
        self.folded += more.folded;
        self.skipped += more.skipped;
        self.late += more.late;
        self.duplicate += more.duplicate;
    }
}

/// Where the rows of a batch go.
#[derive(Debug, Default)]
struct Places {
    rows: Vec<u32>,
    tiles: Vec<u32>,
    base: Vec<u32>,
}

impl Kernel {
    /// Folds rows of one key and one partition, offsets ascending, into a piece. Rows at or below
    /// [`Piece::absorbed`] are skipped; afterwards it is the last row's offset, whatever became of the row.
    ///
    /// The chunks that [`Kernel::needs`] names must be loaded. The rows may be a slice of a large batch: what is kept of them
    /// is copied. An error leaves the piece in an unknown state: the caller reads it anew.
    pub fn fold(&self, piece: &mut Piece, rows: &EventRows) -> Result<FoldCounts, KernelError> {
        self.check_rows(piece, rows)?;
        let skipped =
            piece.absorbed.map_or(0, |absorbed| rows.offsets.values().partition_point(|offset| *offset <= absorbed));
        let mut counts = FoldCounts { skipped, ..FoldCounts::default() };
        let rows = rows.slice(skipped, rows.len());
        let times = rows.times.values();
        let Some(last_offset) = rows.offsets.values().last() else {
            return Ok(counts);
        };
        let before = piece.newest;
        piece.absorbed = Some(*last_offset);
        piece.newest = piece.newest.max(times.iter().max().copied());
        piece.oldest = times.iter().min().copied().into_iter().chain(piece.oldest).min();
        let places = self.places(piece, &rows, before, &mut counts)?;
        counts.folded += places.rows.len() + places.tiles.len() + places.base.len();
        if !places.base.is_empty() {
            self.rows_to_base(piece, &rows.take(&UInt32Array::from(places.base))?)?;
        }
        if !places.tiles.is_empty() {
            self.rows_to_tiles(piece, &rows.take(&UInt32Array::from(places.tiles))?)?;
        }
        let inserted = if places.rows.len() == rows.len() { rows } else { rows.take(&UInt32Array::from(places.rows))? };
        let Piece { rows: chunks, next_chunk, removed, .. } = piece;
        let new_id = || {
            *next_chunk += 1;
            *next_chunk - 1
        };
        chunks.insert(inserted, new_id, removed)?;
        self.seal(piece)?;
        self.trim(piece)?;
        Ok(counts)
    }

    /// Sorts rows out. All places depend on the newest event of the whole batch, never on the order of its rows; whether
    /// a row was late depends on what had come before it (`newest`, then the batch).
    fn places(
        &self,
        piece: &mut Piece,
        rows: &EventRows,
        mut newest: Option<i64>,
        counts: &mut FoldCounts,
    ) -> Result<Places, KernelError> {
        let times = rows.times.values();
        let mut keep_from = self.keep_from(piece)?;
        if self.keep_rows > 0 {
            let mut ascending = times.to_vec();
            ascending.sort_unstable();
            keep_from = keep_from.max(self.keep_from_with(&ascending, piece.newest));
        }
        let sealed_before = self.sealed_before(piece.newest).unwrap_or(i64::MIN);
        let mut places = Places::default();
        let mut accepted = Identities::default();
        for (row, time) in times.iter().enumerate() {
            newest = newest.max(Some(*time));
            if *time < keep_from && self.base.is_none() {
                // One that a later row of this batch put out of reach was in time: it counted, and is trimmed.
                let was_late = *time < self.cut(newest);
                *(if was_late { &mut counts.late } else { &mut counts.folded }) += 1;
                piece.complete_after = piece.complete_after.max(Some(*time));
                continue;
            }
            if let Some(identity) = identity(times, rows.ids.as_ref(), row) {
                if accepted.contains(&identity) || piece.knows(self, &identity)? {
                    counts.duplicate += 1;
                    continue;
                }
                accepted.insert(identity);
            }
            if *time < keep_from {
                places.base.push(row as u32);
            } else if *time < sealed_before {
                places.tiles.push(row as u32);
            } else {
                places.rows.push(row as u32);
            }
        }
        Ok(places)
    }

    /// Moves what lies before the open tiles from rows into tiles.
    fn seal(&self, piece: &mut Piece) -> Result<(), KernelError> {
        let Some(before) = self.sealed_before(piece.newest) else {
            return Ok(());
        };
        let sealed = piece.rows.take_before(before, &mut piece.removed)?;
        sealed.iter().try_for_each(|rows| self.rows_to_tiles(piece, rows))
    }

    /// Drops the chunks that are older than the cut, into the base if there is one.
    fn trim(&self, piece: &mut Piece) -> Result<(), KernelError> {
        let keep_from = self.keep_from(piece)?;
        for chunk in piece.rows.take_chunks_before(keep_from, &mut piece.removed) {
            piece.complete_after = piece.complete_after.max(Some(chunk.span.last));
            if self.base.is_some() {
                self.rows_to_base(piece, chunk.data()?)?;
            }
        }
        // The cut of a tiled view is where a tile starts.
        let count = piece.tiles.partition_point(|chunk| chunk.span.last < keep_from);
        let tiles: Vec<_> = piece.tiles.drain(..count).collect();
        tiles.iter().for_each(|chunk| remove(&mut piece.removed, chunk));
        for chunk in tiles {
            piece.complete_after = piece.complete_after.max(Some(chunk.span.last));
            let Some(folds) = &self.base else { continue };
            for tile in chunk.data()? {
                let states = Arc::make_mut(piece.base.get_or_insert_with(|| self.empty_base()));
                for (state, fold) in states.iter_mut().zip(folds) {
                    self.folds[*fold].merge(state, &tile.states[*fold]);
                }
                remember(piece, tile.hashes.iter().copied())?;
            }
        }
        Ok(())
    }

    fn rows_to_base(&self, piece: &mut Piece, rows: &EventRows) -> Result<(), KernelError> {
        let Some(folds) = &self.base else {
            return Ok(());
        };
        piece.complete_after = piece.complete_after.max(rows.times.values().iter().max().copied());
        let states = Arc::make_mut(piece.base.get_or_insert_with(|| self.empty_base()));
        for (state, fold) in states.iter_mut().zip(folds) {
            let fold = &self.folds[*fold];
            let input = fold.input(&rows.columns, rows.len())?;
            // First and last look at the ends of a range, so the rows must be in order: one at a time they always are.
            for row in 0..rows.len() {
                fold.update(state, &input, rows.order(), row..row + 1);
            }
        }
        let times = rows.times.values();
        let hashes =
            (0..rows.len()).filter_map(|row| identity(times, rows.ids.as_ref(), row)).map(|identity| hash(&identity));
        remember(piece, hashes)
    }

    fn rows_to_tiles(&self, piece: &mut Piece, rows: &EventRows) -> Result<(), KernelError> {
        let Some(length) = self.spec.tile else {
            return Ok(());
        };
        let inputs = self.folds.iter().map(|fold| fold.input(&rows.columns, rows.len()));
        let inputs: Vec<Input> = inputs.collect::<Result<_, _>>()?;
        let times = rows.times.values();
        for (row, time) in times.iter().enumerate() {
            let hash = identity(times, rows.ids.as_ref(), row).map(|identity| hash(&identity));
            self.with_tile(piece, floor(*time, length), |tile| {
                tile.add(&self.folds, &inputs, rows.order(), row, hash);
            })?;
        }
        settle(&mut piece.tiles, (TAIL_TILES, CHUNK_TILES), &mut piece.removed, |before, tail| {
            Ok(before.iter().chain(tail).cloned().collect())
        })
    }

    /// Changes the tile that starts at an instant, made if it isn't there.
    fn with_tile(&self, piece: &mut Piece, start: i64, add: impl FnOnce(&mut Tile)) -> Result<(), KernelError> {
        let new = || Arc::new(Tile::new(start, &self.folds));
        let mut target = target_of(&piece.tiles, start);
        // What lies between two chunks goes into the one behind, which an append has just made, say, if that is at hand.
        let between = piece.tiles.get(target).is_some_and(|chunk| chunk.span.last < start);
        let next = piece.tiles.get(target + 1).filter(|chunk| chunk.is_loaded() && chunk.span.len < CHUNK_TILES);
        target += usize::from(between && next.is_some());
        let behind = piece.tiles.last().is_none_or(|chunk| chunk.span.len >= TAIL_TILES && chunk.span.last < start);
        if behind {
            let id = piece.new_chunk();
            target = piece.tiles.len();
            piece.tiles.push(Chunk::new(id, vec![new()]));
        }
        let tiles = piece.tiles[target].data()?;
        let index = match tiles.binary_search_by_key(&start, |tile| tile.start) {
            Ok(index) => index,
            Err(index) if tiles.len() < CHUNK_TILES => {
                piece.tiles[target].change(|tiles| tiles.insert(index, new()))?;
                index
            }
            Err(index) => {
                // Full: it is halved, since what comes next may go into either half.
                let at = CHUNK_TILES / 2;
                let id = piece.new_chunk();
                let upper = piece.tiles[target].change(|tiles| tiles.split_off(at))?;
                piece.tiles.insert(target + 1, Chunk::new(id, upper));
                let index = if index > at {
                    target += 1;
                    index - at
                } else {
                    index
                };
                piece.tiles[target].change(|tiles| tiles.insert(index, new()))?;
                index
            }
        };
        piece.tiles[target].change(|tiles| add(Arc::make_mut(&mut tiles[index])))
    }

    fn empty_base(&self) -> Arc<Vec<super::fold::State>> {
        Arc::new(self.base.iter().flatten().map(|fold| self.folds[*fold].empty()).collect())
    }

    fn check_rows(&self, piece: &Piece, rows: &EventRows) -> Result<(), KernelError> {
        let error = |message: String| Err(KernelError::Rows(message));
        if rows.partition != piece.partition {
            return error(format!(
                "rows of partition {} for the piece of partition {}",
                rows.partition, piece.partition
            ));
        }
        if rows.offsets.len() != rows.len() || !rows.offsets.values().is_sorted_by(|a, b| a < b) {
            return error(format!("{} offsets that don't all ascend, for {} rows", rows.offsets.len(), rows.len()));
        }
        self.check_batch(rows)
    }

    /// What must be so of rows whoever's they are: of a batch it is asked once for all of its keys.
    pub fn check_batch(&self, rows: &EventRows) -> Result<(), KernelError> {
        if rows.times.null_count() + rows.offsets.null_count() > 0 {
            let message = "an event time or an offset is NULL (hint: the row stage drops such events)";
            return Err(KernelError::Rows(message.to_owned()));
        }
        self.check_columns(rows.len(), rows.ids.as_ref(), &rows.columns)
    }

    /// The columns must be the spec's: as many, as long, of the same types.
    pub(super) fn check_columns(
        &self,
        length: usize,
        ids: Option<&arrow::array::ArrayRef>,
        columns: &[arrow::array::ArrayRef],
    ) -> Result<(), KernelError> {
        let expected = self.spec.columns.iter().chain(&self.spec.event_id);
        let given: Vec<_> = columns.iter().chain(ids).collect();
        if columns.len() != self.spec.columns.len() || ids.is_some() != self.spec.event_id.is_some() {
            return Err(KernelError::Rows(format!(
                "{} columns and {} id column, the spec has {} and {}",
                columns.len(),
                if ids.is_some() { "an" } else { "no" },
                self.spec.columns.len(),
                if self.spec.event_id.is_some() { "one" } else { "none" },
            )));
        }
        for (field, column) in expected.zip(given) {
            if column.data_type() != field.data_type() || column.len() != length {
                return Err(KernelError::Rows(format!(
                    "column {:?} has {} rows of {}, expected {length} of {}",
                    field.name(),
                    column.len(),
                    column.data_type(),
                    field.data_type()
                )));
            }
        }
        Ok(())
    }
}

/// Adds hashes of events that went into the base.
fn remember(piece: &mut Piece, hashes: impl Iterator<Item = u64>) -> Result<(), KernelError> {
    for hash in hashes {
        match piece.hashes.last_mut().filter(|chunk| chunk.span.len < CHUNK_HASHES) {
            Some(chunk) => chunk.change(|hashes| hashes.push(hash))?,
            None => {
                let id = piece.new_chunk();
                piece.hashes.push(Chunk::new(id, vec![hash]));
            }
        }
    }
    Ok(())
}

impl Spanned for Vec<u64> {
    /// Hashes have no times.
    fn span(&self) -> Span {
        Span { len: self.len(), first: 0, last: 0 }
    }
}
