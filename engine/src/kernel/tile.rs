//! Tiles: the events of one aligned stretch of time as partial states, in place of rows.

use std::sync::Arc;

use super::chunk::{Span, Spanned};
use super::fold::{Fold, Input, Order, State};

/// The partial states of one tile: as many as the kernel has folds, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    /// A multiple of the tile's length, in microseconds.
    pub start: i64,
    /// The earliest and the latest event time in it.
    pub min: i64,
    pub max: i64,
    /// 64-bit hashes of (event time, event id), ascending; empty without an event id.
    pub hashes: Vec<u64>,
    pub states: Vec<State>,
}

impl Tile {
    pub fn new(start: i64, folds: &[Fold]) -> Self {
        Tile { start, min: i64::MAX, max: start, hashes: Vec::new(), states: folds.iter().map(Fold::empty).collect() }
    }

    /// Folds one row.
    pub fn add(&mut self, folds: &[Fold], inputs: &[Input], order: Order<'_>, row: usize, hash: Option<u64>) {
        self.min = self.min.min(order.times[row]);
        self.max = self.max.max(order.times[row]);
        if let Some(hash) = hash
            && let Err(place) = self.hashes.binary_search(&hash)
        {
            self.hashes.insert(place, hash);
        }
        for ((fold, state), input) in folds.iter().zip(&mut self.states).zip(inputs) {
            fold.update(state, input, order, row..row + 1);
        }
    }
}

impl Spanned for Vec<Arc<Tile>> {
    fn span(&self) -> Span {
        Span {
            len: self.len(),
            first: self.first().map_or(i64::MAX, |tile| tile.start),
            last: self.last().map_or(i64::MIN, |tile| tile.max),
        }
    }
}

/// The start of the tile that holds an instant: rounded towards minus infinity, before 1970 too.
pub(crate) fn floor(t: i64, tile: i64) -> i64 {
    t.div_euclid(tile).saturating_mul(tile)
}
