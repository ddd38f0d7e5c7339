//! Chunks: the bounded parts of a piece.
//!
//! A piece need not hold a chunk to know where it lies: its head says of each which times it covers. The newest one, the
//! tail, is short and stands in the head itself; the others are stored by themselves. So appending to a long timeline reads
//! and writes only its head, and now and then the chunk before the tail.

use arrow::array::UInt32Array;

use super::KernelError;
use super::fold::value::{Value, value_at};
use super::rows::EventRows;

/// The most rows in a chunk. (Few in tests, which meet more edges then.)
pub(super) const CHUNK_ROWS: usize = if cfg!(test) { 32 } else { 256 };
/// The newest chunk goes into the one before once it has so many rows. What an event writes is about this many rows, half of
/// them for the chunk before: the square root of a chunk is the best of both.
pub(super) const TAIL_ROWS: usize = if cfg!(test) { 4 } else { 16 };

/// What a head says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub len: usize,
    /// The first event time; of tiles, the first one's start.
    pub first: i64,
    /// The last event time.
    pub last: i64,
}

/// What a chunk is made of.
pub(super) trait Spanned {
    fn span(&self) -> Span;
}

impl Spanned for EventRows {
    fn span(&self) -> Span {
        let times = self.times.values();
        Span {
            len: times.len(),
            first: times.first().copied().unwrap_or(i64::MAX),
            last: times.last().copied().unwrap_or(i64::MIN),
        }
    }
}

/// A part of a piece. Never empty.
#[derive(Debug, Clone)]
pub(super) struct Chunk<T> {
    pub id: u32,
    /// Changed since it was last written.
    pub dirty: bool,
    /// The store has it, or what it was, under its id. Otherwise it is new, or in the head.
    pub stored: bool,
    pub span: Span,
    /// None while only the store has it.
    pub data: Option<T>,
}

impl<T: Spanned> Chunk<T> {
    pub fn new(id: u32, data: T) -> Self {
        Chunk { id, dirty: true, stored: false, span: data.span(), data: Some(data) }
    }

    /// One that the store has.
    pub fn stored(id: u32, span: Span) -> Self {
        Chunk { id, dirty: false, stored: true, span, data: None }
    }

    pub fn data(&self) -> Result<&T, KernelError> {
        self.data.as_ref().ok_or(KernelError::NotLoaded { chunk: self.id })
    }

    pub fn set(&mut self, data: T) {
        *self = Chunk { stored: self.stored, ..Chunk::new(self.id, data) };
    }

    /// Changes it in place.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> Result<R, KernelError> {
        let data = self.data.as_mut().ok_or(KernelError::NotLoaded { chunk: self.id })?;
        let result = change(data);
        self.span = data.span();
        self.dirty = true;
        Ok(result)
    }

    /// Whether the head holds it, if it is the newest: it is too short to be worth an entry of its own, and never had one.
    pub fn is_tail(&self, tail: usize) -> bool {
        !self.stored && self.span.len < tail
    }

    pub fn is_loaded(&self) -> bool {
        self.data.is_some()
    }
}

/// Which chunks, by index, adding `added` items behind all others touches: the tail, if there is one, and what it goes
/// into when it is full.
pub(super) fn touched_by_appending<T>(chunks: &[Chunk<T>], tail: usize, added: usize) -> impl Iterator<Item = usize> {
    let n = chunks.len();
    let last = chunks.last().map_or(0, |chunk| chunk.span.len);
    let touched = match last {
        _ if added == 0 => 0,
        _ if last >= tail => usize::from(added >= tail),
        _ => 1 + usize::from(last + added >= tail),
    };
    n.saturating_sub(touched)..n
}

/// The chunk that something at an instant goes into; the first one for what lies before all.
pub(super) fn target_of<T>(chunks: &[Chunk<T>], instant: i64) -> usize {
    chunks.partition_point(|chunk| chunk.span.first <= instant).saturating_sub(1)
}

/// Notes that a chunk is gone.
pub(super) fn remove<T>(removed: &mut Vec<u32>, chunk: &Chunk<T>) {
    removed.extend(chunk.stored.then_some(chunk.id));
}

/// Puts a tail that is long enough into the chunk before, if that has room for it and both are at hand.
pub(super) fn settle<T: Spanned>(
    chunks: &mut Vec<Chunk<T>>,
    (tail, most): (usize, usize),
    removed: &mut Vec<u32>,
    join: impl FnOnce(&T, &T) -> Result<T, KernelError>,
) -> Result<(), KernelError> {
    if let [.., before, last] = chunks.as_mut_slice()
        && last.span.len >= tail
        && before.span.len + last.span.len <= most
        && let (Some(rows), Some(more)) = (&before.data, &last.data)
    {
        before.set(join(rows, more)?);
        remove(removed, last);
        chunks.pop();
    }
    Ok(())
}

/// Chunks of rows, ascending by (event time, offset) within and across.
#[derive(Debug, Clone, Default)]
pub(super) struct RowChunks(pub Vec<Chunk<EventRows>>);

impl RowChunks {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Chunk<EventRows>> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.iter().map(|chunk| chunk.span.len).sum()
    }

    /// The event time of the n-th row from the end, from 1, of those at or before an instant.
    pub fn time_from_end(&self, n: usize, until: i64) -> Result<Option<i64>, KernelError> {
        let Some(mut left) = n.checked_sub(1) else { return Ok(None) };
        for chunk in self.iter().rev().filter(|chunk| chunk.span.first <= until) {
            if chunk.span.last <= until && left >= chunk.span.len {
                left -= chunk.span.len;
                continue;
            }
            let times = chunk.data()?.times.values();
            let times = &times[..times.partition_point(|time| *time <= until)];
            if left < times.len() {
                return Ok(Some(times[times.len() - 1 - left]));
            }
            left -= times.len();
        }
        Ok(None)
    }

    /// Which chunks, by index, [`RowChunks::time_from_end`] looks at, now or after rows were inserted.
    pub fn at_the_end(&self, n: usize, until: i64) -> Vec<usize> {
        let (mut looked_at, mut rows) = (vec![], 0);
        for (index, chunk) in self.0.iter().enumerate().rev().filter(|(_, chunk)| chunk.span.first <= until) {
            if rows >= n {
                break;
            }
            looked_at.push(index);
            rows += if chunk.span.last <= until { chunk.span.len } else { 0 };
        }
        looked_at
    }

    /// The newest event time before an instant.
    pub fn newest_before(&self, instant: i64) -> Result<Option<i64>, KernelError> {
        let Some(chunk) = self.iter().take_while(|chunk| chunk.span.first < instant).last() else { return Ok(None) };
        let times = chunk.data()?.times.values();
        Ok(times.partition_point(|time| *time < instant).checked_sub(1).map(|row| times[row]))
    }

    /// Which chunks, by index, may hold rows of an instant.
    pub fn covering(&self, instant: i64) -> impl Iterator<Item = usize> {
        let from = self.0.partition_point(|chunk| chunk.span.last < instant);
        from..from + self.0[from..].partition_point(|chunk| chunk.span.first <= instant)
    }

    /// Whether a row has this event time and id.
    pub fn holds(&self, (time, id): &(i64, Value)) -> Result<bool, KernelError> {
        for chunk in self.covering(*time) {
            let rows = self.0[chunk].data()?;
            let times = rows.times.values();
            let mut same = times.partition_point(|held| held < time)..times.partition_point(|held| held <= time);
            if rows.ids.as_ref().is_some_and(|ids| same.any(|row| value_at(ids, row).as_ref() == Some(id))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Inserts rows, whose offsets are higher than all that are held and ascend.
    pub fn insert(
        &mut self,
        rows: EventRows,
        mut new_id: impl FnMut() -> u32,
        removed: &mut Vec<u32>,
    ) -> Result<(), KernelError> {
        let mut rows = by_time(rows)?;
        // From the end, so that a chunk that splits doesn't move the ones still to come.
        while !rows.is_empty() {
            let span = rows.span();
            let target = target_of(&self.0, span.last);
            let Some(chunk) = self.0.get(target) else {
                self.append(&rows, &mut new_id)?;
                break;
            };
            let times = rows.times.values();
            let from = if target == 0 { 0 } else { times.partition_point(|time| *time < chunk.span.first) };
            let part = rows.slice(from, rows.len() - from);
            let newest = target + 1 == self.0.len();
            if newest && chunk.span.len >= TAIL_ROWS && part.span().first >= chunk.span.last {
                self.append(&part, &mut new_id)?;
            } else {
                let merged = merge(chunk.data()?, &part)?;
                self.replace(target, &merged, &mut new_id);
            }
            if from == 0 {
                break;
            }
            rows = rows.slice(0, from);
        }
        settle(&mut self.0, (TAIL_ROWS, CHUNK_ROWS), removed, |before, tail| EventRows::concat(&[before, tail]))
    }

    /// Takes out the rows before an instant, ascending. The chunk that the instant cuts becomes shorter.
    pub fn take_before(&mut self, instant: i64, removed: &mut Vec<u32>) -> Result<Vec<EventRows>, KernelError> {
        let mut taken = Vec::new();
        while let Some(chunk) = self.0.first_mut().filter(|chunk| chunk.span.first < instant) {
            let rows = chunk.data()?;
            let count = rows.times.values().partition_point(|time| *time < instant);
            let (before, after) = (rows.slice(0, count), rows.slice(count, rows.len()));
            taken.push(before);
            if !after.is_empty() {
                chunk.set(after);
                break;
            }
            remove(removed, chunk);
            self.0.remove(0);
        }
        Ok(taken)
    }

    /// Takes out the chunks all of whose rows are before an instant.
    pub fn take_chunks_before(&mut self, instant: i64, removed: &mut Vec<u32>) -> Vec<Chunk<EventRows>> {
        let count = self.0.partition_point(|chunk| chunk.span.last < instant);
        let taken: Vec<_> = self.0.drain(..count).collect();
        taken.iter().for_each(|chunk| remove(removed, chunk));
        taken
    }

    /// Puts rows behind all others, in chunks of their own.
    fn append(&mut self, rows: &EventRows, mut new_id: impl FnMut() -> u32) -> Result<(), KernelError> {
        for start in (0..rows.len()).step_by(CHUNK_ROWS) {
            // What comes in may be a slice of a large batch.
            self.0.push(Chunk::new(new_id(), rows.slice(start, CHUNK_ROWS).compact()?));
        }
        Ok(())
    }

    /// Puts rows in a chunk's place: in one, or, if they are too many, in several. The newest chunk is filled up,
    /// since what comes next goes after it; another one is halved, since what comes next may go into either half.
    fn replace(&mut self, target: usize, rows: &EventRows, mut new_id: impl FnMut() -> u32) {
        let parts = rows.len().div_ceil(CHUNK_ROWS);
        let newest = target + 1 == self.0.len();
        let size = if newest { CHUNK_ROWS } else { rows.len().div_ceil(parts) };
        let (id, stored) = (self.0[target].id, self.0[target].stored);
        let parts = (0..parts).map(|part| (part, rows.slice(part * size, size))).filter(|(_, rows)| !rows.is_empty());
        let mut chunks: Vec<_> =
            parts.map(|(part, rows)| Chunk::new(if part == 0 { id } else { new_id() }, rows)).collect();
        if let Some(first) = chunks.first_mut() {
            first.stored = stored;
        }
        self.0.splice(target..=target, chunks);
    }
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
