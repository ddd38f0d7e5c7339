//! FIRST_VALUE, LAST_VALUE and NTH_VALUE: rows by their place in the timeline's order.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;

use super::Order;
use super::value::{Value, value_at};

/// A row that a state remembers: its place and its value, which may be NULL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    /// Event time, partition, offset.
    pub place: (i64, i32, i64),
    pub value: Option<Value>,
}

impl Position {
    pub fn at(column: &ArrayRef, order: Order<'_>, row: usize) -> Self {
        let place = (order.times[row], order.partitions.get(row), order.offsets[row]);
        Position { place, value: value_at(column, row) }
    }
}

/// Keeps the earlier (or the later) of two positions.
pub(crate) fn merge(position: &mut Option<Position>, other: Position, first: bool) {
    let replaces =
        position.as_ref().is_none_or(|held| if first { other.place < held.place } else { other.place > held.place });
    if replaces {
        *position = Some(other);
    }
}

pub(crate) fn first(mask: Option<&BooleanBuffer>, mut range: Range<usize>) -> Option<usize> {
    range.find(|row| mask.is_none_or(|mask| mask.value(*row)))
}

pub(crate) fn last(mask: Option<&BooleanBuffer>, mut range: Range<usize>) -> Option<usize> {
    range.rfind(|row| mask.is_none_or(|mask| mask.value(*row)))
}

/// The n-th row of a range that counts, from 1; from the end when negative.
pub(crate) fn nth(mask: Option<&BooleanBuffer>, mut range: Range<usize>, n: i64) -> Option<usize> {
    let index = usize::try_from(n.unsigned_abs()).ok()?.checked_sub(1)?;
    let counts = |row: &usize| mask.is_none_or(|mask| mask.value(*row));
    if n > 0 { range.by_ref().filter(counts).nth(index) } else { range.rev().filter(counts).nth(index) }
}
