//! Rows in chunks: bounded, ascending, so that appending to a long timeline rewrites only its newest chunk.

use arrow::array::UInt32Array;

use super::KernelError;
use super::fold::value::{Value, value_at};
use super::rows::EventRows;

/// The most rows in a chunk.
pub(super) const CHUNK_ROWS: usize = 256;

/// A part of a piece that is stored under an id of its own.
#[derive(Debug, Clone)]
pub(super) struct Chunk<T> {
    pub id: u32,
    /// Changed since it was last written.
    pub dirty: bool,
    pub data: T,
}

/// Chunks of rows, none empty, ascending by (event time, offset) within and across.
#[derive(Debug, Clone, Default)]
pub(super) struct RowChunks(pub Vec<Chunk<EventRows>>);

impl RowChunks {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Chunk<EventRows>> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.iter().map(|chunk| chunk.data.len()).sum()
    }

    /// The event time of the n-th row from the end, from 1, of those at or before an instant.
    pub fn time_from_end(&self, n: usize, until: i64) -> Option<i64> {
        let mut left = n.checked_sub(1)?;
        for chunk in self.iter().rev() {
            let times = chunk.data.times.values();
            let times = &times[..times.partition_point(|time| *time <= until)];
            if left < times.len() {
                return Some(times[times.len() - 1 - left]);
            }
            left -= times.len();
        }
        None
    }

    /// The newest event time before an instant.
    pub fn newest_before(&self, instant: i64) -> Option<i64> {
        let before = |chunk: &&Chunk<EventRows>| first(&chunk.data) < instant;
        let chunk = self.iter().take_while(before).last()?;
        let times = chunk.data.times.values();
        times.partition_point(|time| *time < instant).checked_sub(1).map(|row| times[row])
    }

    /// Whether a row has this event time and id.
    pub fn holds(&self, (time, id): &(i64, Value)) -> bool {
        let from = self.0.partition_point(|chunk| last(&chunk.data) < *time);
        self.0[from..].iter().take_while(|chunk| first(&chunk.data) <= *time).any(|chunk| {
            let times = chunk.data.times.values();
            let rows = times.partition_point(|held| held < time)..times.partition_point(|held| held <= time);
            chunk
                .data
                .ids
                .as_ref()
                .is_some_and(|ids| rows.into_iter().any(|row| value_at(ids, row).as_ref() == Some(id)))
        })
    }

    /// Inserts rows, whose offsets are higher than all that are held and ascend.
    pub fn insert(&mut self, rows: EventRows, mut new_id: impl FnMut() -> u32) -> Result<(), KernelError> {
        let mut rows = by_time(rows)?;
        if rows.is_empty() {
            return Ok(());
        }
        if self.0.is_empty() {
            let (head, rest) = (rows.slice(0, CHUNK_ROWS), rows.slice(CHUNK_ROWS, rows.len()));
            self.0.push(Chunk { id: new_id(), dirty: true, data: head });
            rows = rest;
        }
        // From the end, so that a chunk that splits doesn't move the ones still to come.
        while !rows.is_empty() {
            let times = rows.times.values();
            let target = self.0.partition_point(|chunk| first(&chunk.data) <= times[times.len() - 1]).saturating_sub(1);
            let from = if target == 0 { 0 } else { times.partition_point(|time| *time < first(&self.0[target].data)) };
            let merged = merge(&self.0[target].data, &rows.slice(from, rows.len() - from))?;
            self.replace(target, &merged, &mut new_id);
            rows = rows.slice(0, from);
        }
        Ok(())
    }

    /// Takes out the rows before an instant, ascending. The chunk that the instant cuts becomes shorter.
    pub fn take_before(&mut self, instant: i64, removed: &mut Vec<u32>) -> Vec<EventRows> {
        let mut taken = Vec::new();
        while let Some(chunk) = self.0.first_mut() {
            let count = chunk.data.times.values().partition_point(|time| *time < instant);
            let (before, after) = (chunk.data.slice(0, count), chunk.data.slice(count, chunk.data.len()));
            if count > 0 {
                taken.push(before);
                chunk.dirty = true;
            }
            if !after.is_empty() {
                chunk.data = after;
                break;
            }
            removed.push(chunk.id);
            self.0.remove(0);
        }
        taken
    }

    /// Takes out the chunks all of whose rows are before an instant.
    pub fn take_chunks_before(&mut self, instant: i64, removed: &mut Vec<u32>) -> Vec<EventRows> {
        let count = self.0.partition_point(|chunk| last(&chunk.data) < instant);
        let chunks = self.0.drain(..count);
        chunks
            .map(|chunk| {
                removed.push(chunk.id);
                chunk.data
            })
            .collect()
    }

    /// Puts rows in a chunk's place: in one, or, if they are too many, in several. The newest chunk is filled up,
    /// since what comes next goes after it; another one is halved, since what comes next may go into either half.
    fn replace(&mut self, target: usize, rows: &EventRows, mut new_id: impl FnMut() -> u32) {
        let parts = rows.len().div_ceil(CHUNK_ROWS);
        let newest = target + 1 == self.0.len();
        let size = if newest { CHUNK_ROWS } else { rows.len().div_ceil(parts) };
        let id = self.0[target].id;
        let chunks = (0..parts).map(|part| Chunk {
            id: if part == 0 { id } else { new_id() },
            dirty: true,
            data: rows.slice(part * size, size),
        });
        let chunks: Vec<_> = chunks.filter(|chunk| !chunk.data.is_empty()).collect();
        self.0.splice(target..=target, chunks);
    }
}

/// The event time of a chunk's first row. Chunks are never empty.
fn first(rows: &EventRows) -> i64 {
    rows.times.values().first().copied().unwrap_or(i64::MAX)
}

fn last(rows: &EventRows) -> i64 {
    rows.times.values().last().copied().unwrap_or(i64::MIN)
}

/// Rows by event time; rows of one time stay in the order of their offsets.
fn by_time(rows: EventRows) -> Result<EventRows, KernelError> {
    let times = rows.times.values();
    if times.is_sorted() {
        return Ok(rows);
    }
    let mut indices: Vec<u32> = (0..rows.len() as u32).collect();
    indices.sort_by_key(|row| times[*row as usize]);
    rows.take(&UInt32Array::from(indices))
}

/// Held and new rows in one: a new row goes after the held ones of its time.
fn merge(held: &EventRows, new: &EventRows) -> Result<EventRows, KernelError> {
    let both = EventRows::concat(&[held, new])?;
    by_time(both)
}
