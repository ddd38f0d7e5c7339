//! Folding events where only the newest rows of a piece change: from stored bytes to stored bytes.
//!
//! Guarantee: the very bytes and counts that decoding the head, [`Kernel::fold`] and [`Kernel::encode_changes`] come to, or
//! none. It is how most events go into most pieces: in order, a few at a time, into the tail that stands in the head. Arrays of
//! a few rows cost many times what is in them, so none are made.

use std::ops::Range;

use super::EncodingError;
use super::absorb::FoldCounts;
use super::chunk::TAIL_ROWS;
use super::compile::Kernel;
use super::encoding::bytes::{Reader, Writer};
use super::encoding::extend::{extend, extends};
use super::encoding::piece::{HAS_BASE, HAS_ROWS, HAS_TILES, present};
use super::rows::EventRows;

/// A piece with new rows behind all others; its chunks are as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub head: Vec<u8>,
    /// The last offset that the piece had absorbed.
    pub before: Option<i64>,
    pub absorbed: i64,
    pub counts: FoldCounts,
}

/// What the bytes of a head say, as far as appending needs to know.
struct Head<'a> {
    flags: u8,
    absorbed: Option<i64>,
    newest: Option<i64>,
    oldest: Option<i64>,
    complete_after: Option<i64>,
    next_chunk: u64,
    chunks: u64,
    /// All entries but the newest chunk's.
    older: &'a [u8],
    /// Where the differences in the newest entry start from.
    before_newest: i64,
    first: Option<Entry>,
    newest_chunk: Option<Entry>,
    /// The last tile of the oldest chunk of tiles.
    tiles: Option<i64>,
    /// The spans of tiles and the chunks of hashes.
    others: &'a [u8],
}

#[derive(Clone, Copy)]
struct Entry {
    id: u64,
    len: usize,
    first: i64,
    last: i64,
}

impl Kernel {
    /// Adds rows of a batch, those of one key, to a piece; `head` is what is stored of it, if anything. None if that changes more
    /// than its newest rows, or may: then [`Kernel::fold`] does it.
    pub fn append(
        &self,
        head: Option<&[u8]>,
        batch: &EventRows,
        rows: Range<usize>,
    ) -> Result<Option<Appended>, EncodingError> {
        if rows.is_empty() || rows.end > batch.len() || !self.appends {
            return Ok(None);
        }
        let mut reader = head.map_or(Ok(Reader::empty()), Reader::open)?;
        let Some(head) = (match head {
            Some(_) => Head::read(&mut reader)?,
            None => Some(Head::none()),
        }) else {
            return Ok(None);
        };
        let Some((kept, tail)) = self.tail(&head, batch, &rows) else { return Ok(None) };
        let (Some(absorbed), Some(newest)) =
            (batch.offsets.values().get(rows.end - 1), batch.times.values().get(rows.end - 1))
        else {
            return Ok(None);
        };
        let time = |row: usize| batch.times.values().get(row).copied();
        let oldest = time(rows.start);
        let dropped = kept.start.checked_sub(1).filter(|row| rows.contains(row)).and_then(time);
        let after = Head {
            flags: head.flags | HAS_ROWS,
            absorbed: Some(*absorbed),
            newest: Some(*newest),
            oldest: head.oldest.into_iter().chain(oldest).min(),
            complete_after: head.complete_after.max(dropped),
            ..head
        };
        let mut writer = Writer::versioned();
        after.write(&mut writer, tail);
        self.write_tail(&mut writer, (&mut reader, tail), batch, kept)?;
        if head.flags & HAS_TILES == 0 && reader.remaining() > 0 {
            return Err(reader.corrupt(format!("{} bytes are left over", reader.remaining())));
        }
        writer.bytes(reader.rest());
        let counts = FoldCounts { folded: rows.len(), ..FoldCounts::default() };
        Ok(Some(Appended { head: writer.sealed(), before: head.absorbed, absorbed: *absorbed, counts }))
    }

    /// Whether a view's columns can be appended to at all.
    pub(super) fn can_append(&self) -> bool {
        self.spec.columns.iter().chain(&self.spec.event_id).all(|field| extends(field.data_type()))
    }

    /// How many of a key's new rows, the first by their times, others of them put out of reach, whatever is there already, so that no fold reads
    /// their columns. None, where the times don't ascend, or what is older is kept in a base or in tiles.
    pub fn passed(&self, times: &[i64]) -> usize {
        let kept = self.base.is_some() || self.spec.tile.is_some();
        if kept || !times.is_sorted() { 0 } else { self.out_of_reach(times) }
    }

    /// How many of the first of these times, which ascend, are older than what is kept when all are there.
    fn out_of_reach(&self, times: &[i64]) -> usize {
        let keep_from = self.keep_from_with(times, times.last().copied());
        times.partition_point(|time| *time < keep_from)
    }

    /// Which of the rows are kept, since others of them put the first out of reach; and the newest chunk as they make it, if they change
    /// nothing else.
    fn tail(&self, head: &Head<'_>, batch: &EventRows, rows: &Range<usize>) -> Option<(Range<usize>, Tail)> {
        let times = batch.times.values().get(rows.clone())?;
        let (first, last) = (*times.first()?, *times.last()?);
        let new_offsets = head.absorbed < batch.offsets.values().get(rows.start).copied();
        // Events of one time may be one event.
        let apart = self.spec.event_id.is_some();
        let ascend = |a: i64, b: i64| if apart { a < b } else { a <= b };
        let in_order =
            times.is_sorted_by(|a, b| ascend(*a, *b)) && head.newest.is_none_or(|newest| ascend(newest, first));
        let in_batch = batch.offsets.values().get(rows.clone())?.is_sorted_by(|a, b| a < b);
        if !(new_offsets && in_order && in_batch) || head.flags & HAS_BASE != 0 {
            return None;
        }
        let newest = Some(last);
        let dropped = self.out_of_reach(times);
        let times = times.get(dropped..)?;
        let first = *times.first()?;
        // Nothing else is trimmed, and nothing sealed. (Of ROWS frames, the newest chunk is kept whatever its age.)
        if times.len() >= TAIL_ROWS || dropped > 0 && self.base.is_some() {
            return None;
        }
        let oldest = head.first.map(|chunk| chunk.last).into_iter().chain(head.tiles).fold(first, i64::min);
        let only = head.chunks == 0 || head.chunks == 1 && head.flags & HAS_ROWS != 0;
        let kept = oldest >= self.cut(newest) || self.keep_rows > 0 && only;
        let oldest_row = head.first.map_or(first, |chunk| chunk.first.min(first));
        let open = self.sealed_before(newest).is_none_or(|before| oldest_row >= before);
        if !kept || !open {
            return None;
        }
        let tail = match head.newest_chunk {
            Some(chunk) if head.flags & HAS_ROWS != 0 => {
                let len = chunk.len + times.len();
                (len < TAIL_ROWS).then_some(Tail { held: Some(chunk), entry: Entry { len, last, ..chunk } })
            }
            // A chunk that has an entry of its own is long enough to stay as it is.
            Some(chunk) if chunk.len < TAIL_ROWS => None,
            _ => Some(Tail { held: None, entry: Entry { id: head.next_chunk, len: times.len(), first, last } }),
        };
        Some((rows.start + dropped..rows.end, tail?))
    }

    fn write_tail(
        &self,
        writer: &mut Writer,
        (reader, tail): (&mut Reader<'_>, Tail),
        batch: &EventRows,
        rows: Range<usize>,
    ) -> Result<(), EncodingError> {
        writer.length(tail.entry.len);
        let held = match tail.held {
            Some(_) => reader.length(2)?,
            None => 0,
        };
        let times = batch.times.values().get(rows.clone()).unwrap_or_default();
        let mut last = 0;
        for row in 0..held {
            if row == 0 {
                last = reader.signed()?;
                writer.signed(last);
            } else {
                let delta = reader.unsigned()?;
                last = last.wrapping_add(delta as i64);
                writer.unsigned(delta);
            }
        }
        if tail.held.is_some_and(|chunk| chunk.len != held || chunk.last != last) {
            return Err(
                reader.corrupt(format!("the newest chunk has {held} rows up to {last}, its span says otherwise"))
            );
        }
        for (row, time) in (held..).zip(times) {
            match row {
                0 => writer.signed(*time),
                _ => writer.unsigned(time.wrapping_sub(last) as u64),
            }
            last = *time;
        }
        let mut offset = 0i64;
        for _ in 0..held {
            let delta = reader.signed()?;
            offset = offset.wrapping_add(delta);
            writer.signed(delta);
        }
        for next in batch.offsets.values().get(rows.clone()).unwrap_or_default() {
            writer.signed(next.wrapping_sub(offset));
            offset = *next;
        }
        for column in batch.ids.iter().chain(&batch.columns) {
            extend(writer, (reader, held), column, rows.clone())?;
        }
        Ok(())
    }
}

/// The newest chunk, before if it is in the head, and after.
#[derive(Clone, Copy)]
struct Tail {
    held: Option<Entry>,
    entry: Entry,
}

impl<'a> Head<'a> {
    fn none() -> Self {
        Head {
            flags: 0,
            absorbed: None,
            newest: None,
            oldest: None,
            complete_after: None,
            next_chunk: 0,
            chunks: 0,
            older: &[],
            before_newest: 0,
            first: None,
            newest_chunk: None,
            tiles: None,
            // No tiles, no hashes.
            others: &[0, 0],
        }
    }

    /// Reads up to the base; nothing of a head that has one.
    fn read(reader: &mut Reader<'a>) -> Result<Option<Self>, EncodingError> {
        let flags = reader.byte()?;
        if flags & HAS_BASE != 0 || flags > 127 {
            return Ok(None);
        }
        let mut next = |bit: u8| if flags >> bit & 1 == 1 { reader.signed().map(Some) } else { Ok(None) };
        let (absorbed, newest, oldest, complete_after) = (next(0)?, next(1)?, next(2)?, next(3)?);
        let next_chunk = reader.unsigned()?;
        if next_chunk >= u64::from(u32::MAX) {
            return Ok(None);
        }
        let chunks = reader.length(4)?;
        let entries = reader.rest();
        let (mut older, mut before_newest, mut last) = (0, 0, 0i64);
        let (mut first_chunk, mut newest_chunk) = (None, None);
        for _ in 0..chunks {
            (older, before_newest) = (entries.len() - reader.remaining(), last);
            let (id, len) = (reader.unsigned()?, reader.unsigned()?);
            let first = last.wrapping_add(reader.signed()?);
            last = first.wrapping_add(reader.unsigned()? as i64);
            // What no head says: the fold finds the words for it.
            let Some(len) = usize::try_from(len).ok().filter(|len| (1..=1 << 24).contains(len)) else {
                return Ok(None);
            };
            let entry = Entry { id, len, first, last };
            first_chunk = first_chunk.or(Some(entry));
            newest_chunk = Some(entry);
        }
        let others = reader.rest();
        let mut tiles = None;
        for _ in 0..reader.length(4)? {
            let (_, _, first, span) = (reader.unsigned()?, reader.unsigned()?, reader.signed()?, reader.unsigned()?);
            // Of the oldest the difference is to 0.
            tiles = tiles.or(Some(first.wrapping_add(span as i64)));
        }
        for _ in 0..reader.length(2)? {
            let _hashes = (reader.unsigned()?, reader.unsigned()?);
        }
        let others = others.get(..others.len() - reader.remaining()).unwrap_or_default();
        Ok(Some(Head {
            flags,
            absorbed,
            newest,
            oldest,
            complete_after,
            next_chunk,
            chunks: chunks as u64,
            older: entries.get(..older).unwrap_or_default(),
            before_newest,
            first: first_chunk,
            newest_chunk,
            tiles,
            others,
        }))
    }

    /// Writes all that stands before the rows.
    fn write(&self, writer: &mut Writer, tail: Tail) {
        let numbers = [self.absorbed, self.newest, self.oldest, self.complete_after];
        writer.byte(self.flags & !0b1111 | present(&numbers));
        numbers.into_iter().flatten().for_each(|number| writer.signed(number));
        writer.unsigned(self.next_chunk + u64::from(tail.held.is_none()));
        writer.unsigned(self.chunks + u64::from(tail.held.is_none()));
        writer.bytes(self.older);
        let mut before = self.before_newest;
        // The newest chunk stays, if the tail is a new one.
        let stays = self.newest_chunk.filter(|_| tail.held.is_none());
        for entry in stays.into_iter().chain([tail.entry]) {
            writer.unsigned(entry.id);
            writer.length(entry.len);
            writer.signed(entry.first.wrapping_sub(before));
            writer.unsigned(entry.last.wrapping_sub(entry.first) as u64);
            before = entry.last;
        }
        writer.bytes(self.others);
    }
}
