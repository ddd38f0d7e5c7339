//! Which chunks of a piece a fold looks at or changes: what is to be loaded before it.
//!
//! Guarantee: a fold of rows for which [`Kernel::needs`] names nothing doesn't miss a chunk.

use super::absorb::TAIL_TILES;
use super::chunk::{Chunk, TAIL_ROWS, target_of, touched_by_appending};
use super::compile::Kernel;
use super::piece::Piece;
use super::rows::EventRows;
use super::tile::floor;

impl Kernel {
    /// The chunks that must be loaded ([`Kernel::supply`]) before these rows are folded. Once they are, there may be others:
    /// ask again until there are none.
    pub fn needs(&self, piece: &Piece, rows: &EventRows) -> Vec<u32> {
        let fresh =
            piece.absorbed.map_or(0, |absorbed| rows.offsets.values().partition_point(|offset| *offset <= absorbed));
        let times = rows.times.values().get(fresh..).unwrap_or_default();
        let Some(latest) = times.iter().max() else { return vec![] };
        let newest = piece.newest.max(Some(*latest));
        let (mut of_rows, mut of_tiles) = (self.standing(piece, newest), vec![]);
        let chunks = &piece.rows.0;
        of_rows.extend(touched_by_appending(chunks, TAIL_ROWS, times.len()));
        for time in times {
            of_rows.extend(piece.rows.covering(*time));
            if piece.rows.iter().next_back().is_some_and(|chunk| *time < chunk.span.last) {
                of_rows.push(target_of(chunks, *time));
            }
        }
        if self.base.is_some() {
            let cut = self.cut(newest);
            of_rows.extend(0..chunks.partition_point(|chunk| chunk.span.last < cut));
            of_tiles.extend(0..piece.tiles.partition_point(|chunk| chunk.span.last < cut));
        }
        if let (Some(length), Some(before)) = (self.spec.tile, self.sealed_before(newest)) {
            of_tiles.extend(times.iter().filter_map(|time| piece.chunk_of_tile(floor(*time, length))));
            let sealed = chunks.partition_point(|chunk| chunk.span.first < before);
            of_rows.extend(0..sealed);
            let held = chunks[..sealed].iter().filter_map(|chunk| chunk.data.as_ref());
            let times = held.flat_map(|rows| rows.times.values()).chain(times).filter(|time| **time < before);
            let mut starts: Vec<i64> = times.map(|time| floor(*time, length)).collect();
            starts.sort_unstable();
            starts.dedup();
            if let Some(first) = starts.first() {
                of_tiles.extend(touched_by_appending(&piece.tiles, TAIL_TILES, starts.len()));
                if piece.tiles.last().is_some_and(|chunk| *first <= chunk.span.last) {
                    of_tiles.extend(target_of(&piece.tiles, *first)..piece.tiles.len());
                }
            }
        }
        let missing = missing(chunks, of_rows).chain(missing(&piece.tiles, of_tiles));
        // Hashes are in no order: a fold looks at all of them or at none.
        let hashes = piece.hashes.iter().filter(|chunk| !chunk.is_loaded()).map(|chunk| chunk.id);
        let mut missing: Vec<u32> = missing.chain(hashes).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The chunks of rows, by index, that every fold looks at.
    fn standing(&self, piece: &Piece, newest: Option<i64>) -> Vec<usize> {
        match self.keep_rows {
            0 => vec![],
            needed => piece.rows.at_the_end(needed, self.now(newest)),
        }
    }
}

fn missing<T>(chunks: &[Chunk<T>], needed: Vec<usize>) -> impl Iterator<Item = u32> {
    let needed = needed.into_iter().filter_map(|index| chunks.get(index));
    needed.filter(|chunk| chunk.data.is_none()).map(|chunk| chunk.id)
}
