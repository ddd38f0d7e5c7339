//! A position in the files of a location, and the events from there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::{filter_record_batch, max};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;

use super::super::event_time::refuse_time;
use super::super::{Reject, SourceBatch, SourceError};
use super::ROW_BITS;
use super::convert::Chunk;
use super::listing::Listing;
use super::rows::{self, Rows};
use super::stretch::{Kind, Stretch};

const ROW_MASK: i64 = (1 << ROW_BITS) - 1;

/// Reads the stretches of a listing; keeps the one it is in open.
pub(super) struct Reader {
    listing: Listing,
    columns: SchemaRef,
    only: Option<BTreeSet<String>>,
    schema: SchemaRef,
    cursor: Option<Cursor>,
    same: Same,
}

/// Columns that are the same in every row of a stretch, as long as its longest chunk so far.
struct Same {
    ingested_at: i64,
    partitions: ArrayRef,
    ingested: ArrayRef,
}

/// An open stretch of a file, and where in it the next chunk starts.
struct Cursor {
    number: usize,
    row: u32,
    path: PathBuf,
    rows: Rows,
    /// Read ahead, to know whether a chunk is a file's last.
    ahead: Option<Result<Chunk, String>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.cursor.as_ref().map(|cursor| (cursor.number, cursor.row));
        f.debug_struct("Reader").field("listing", &self.listing).field("at", &at).finish_non_exhaustive()
    }
}

impl Reader {
    /// With `only`, other columns may come as NULLs, see [`rows::open`].
    pub(super) fn new(
        listing: Listing,
        columns: SchemaRef,
        only: Option<BTreeSet<String>>,
        schema: SchemaRef,
    ) -> Reader {
        Reader { listing, columns, only, schema, cursor: None, same: Same::new(0, 0) }
    }

    /// How many numbers are given.
    pub(super) fn numbers(&self) -> usize {
        self.listing.stretches.len()
    }

    /// The offset after the last row of the last stretch.
    pub(super) fn end_offset(&mut self) -> Result<i64, SourceError> {
        self.listing.refresh()?;
        Ok(offset(self.numbers(), 0))
    }

    /// About how many rows lie between two offsets; at least one, if there is anything.
    pub(super) fn between(&self, from: i64, to: i64) -> i64 {
        let before = |at: i64| self.listing.rows_before((at >> ROW_BITS) as usize, (at & ROW_MASK) as u32);
        let rows = i64::try_from(before(to).saturating_sub(before(from))).unwrap_or(i64::MAX);
        rows.max(i64::from(from < to))
    }

    /// Events from an offset on, of one stretch; at its end the next offset is the next one's first.
    pub(super) fn read(&mut self, from: i64, max: usize) -> Result<Option<SourceBatch>, SourceError> {
        let mut at = from;
        // Numbers that could not be saved are not used.
        self.listing.save()?;
        loop {
            let (number, row) = ((at >> ROW_BITS) as usize, (at & ROW_MASK) as u32);
            if number >= self.numbers() {
                self.listing.refresh()?;
            }
            let Some(stretch) = self.listing.stretches.get(number).cloned() else {
                // Stretches without rows may have been stepped over.
                return if at > from { self.batch(from, at, Vec::new(), None).map(Some) } else { Ok(None) };
            };
            let after = offset(number + 1, 0);
            // A former location's, or …
            if stretch.of != self.listing.config.of {
                at = after;
                continue;
            }
            if stretch.kind == Kind::Changed {
                let news = Reject {
                    offset: at,
                    ingested_at: stretch.numbered,
                    payload: Bytes::from(stretch.file.clone()),
                    reason: self.listing.changed(Path::new(&stretch.file)).to_string(),
                };
                return self.batch(from, after, vec![news], None).map(Some);
            }
            let open = self.cursor.take().filter(|cursor| cursor.number == number && cursor.row == row);
            let opened = match open {
                Some(cursor) => Ok(cursor),
                None => match self.listing.readable(&stretch, false)? {
                    Some(path) => self.open(path, number, row, &stretch),
                    // … one that was unreadable and is something else now.
                    None => {
                        at = after;
                        continue;
                    }
                },
            };
            let next = opened.and_then(|cursor| self.next_chunk(cursor, max));
            let (chunk, path, last) = match next {
                Ok(Some(next)) => next,
                Ok(None) => {
                    at = after;
                    continue;
                }
                Err(reason) => {
                    // Only what the numbered bytes are is a reason to reject them; not a disk that fails, for instance.
                    let Some(path) = self.listing.readable(&stretch, true)? else {
                        at = after;
                        continue;
                    };
                    if row == 0 && stretch.from == 0 {
                        self.listing.set_kind(number, Kind::Unreadable)?;
                    }
                    let whole = if row == 0 && stretch.from == 0 { "the file" } else { "the rest of the file" };
                    let reject = Reject {
                        offset: at,
                        ingested_at: stretch.numbered,
                        payload: Bytes::from(path.to_string_lossy().into_owned()),
                        reason: format!("{}: {whole} can't be read: {reason}", path.display()),
                    };
                    return self.batch(from, after, vec![reject], None).map(Some);
                }
            };
            self.listing.set_kind(number, Kind::Events)?;
            let next_offset = if last { after } else { offset(number, chunk.first + chunk.rows) };
            return self.batch(from, next_offset, Vec::new(), Some((number, &stretch, &path, chunk))).map(Some);
        }
    }

    fn open(&self, path: PathBuf, number: usize, row: u32, stretch: &Stretch) -> Result<Cursor, String> {
        let bytes = stretch.from..stretch.to;
        let mut rows = rows::open(&path, self.listing.config.format, &self.columns, self.only.as_ref(), bytes, row)?;
        let ahead = rows.next();
        Ok(Cursor { number, row, path, rows, ahead })
    }

    /// The next chunk, its file, and whether it is the last; nothing at the end.
    fn next_chunk(&mut self, cursor: Cursor, max: usize) -> Result<Option<(Chunk, PathBuf, bool)>, String> {
        let cursor = self.cursor.insert(cursor);
        let chunk = match cursor.ahead.take() {
            Some(Ok(mut chunk)) if chunk.rows as usize > max => {
                let front = chunk.split_off_front(u32::try_from(max).unwrap_or(u32::MAX));
                cursor.ahead = Some(Ok(chunk));
                front
            }
            Some(Ok(chunk)) => {
                cursor.ahead = cursor.rows.next();
                chunk
            }
            Some(Err(reason)) => {
                self.cursor = None;
                return Err(reason);
            }
            None => return Ok(None),
        };
        cursor.row = chunk.first + chunk.rows;
        Ok(Some((chunk, cursor.path.clone(), cursor.ahead.is_none())))
    }

    fn batch(
        &mut self,
        first_offset: i64,
        next_offset: i64,
        mut rejects: Vec<Reject>,
        chunk: Option<(usize, &Stretch, &Path, Chunk)>,
    ) -> Result<SourceBatch, SourceError> {
        let mut events = RecordBatch::new_empty(Arc::clone(&self.schema));
        if let Some((number, stretch, path, chunk)) = chunk {
            let place = Place { number, path, from: stretch.from, ingested_at: stretch.numbered };
            events = self.events(&place, chunk, &mut rejects).map_err(|e| SourceError::Internal {
                source_name: self.listing.source.clone(),
                what: format!("{}: {e}", path.display()),
            })?;
        }
        rejects.sort_by_key(|reject| reject.offset);
        Ok(SourceBatch { partition: 0, first_offset, next_offset, events, rejects })
    }

    /// A chunk with the platform's columns; rows whose time is refused join the rejects.
    fn events(
        &mut self,
        place: &Place,
        chunk: Chunk,
        rejects: &mut Vec<Reject>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let Chunk { mut batch, mut numbers, rejects: bad, .. } = chunk;
        rejects.extend(bad.into_iter().map(|bad| place.reject(bad.number, bad.payload, &bad.reason)));
        let (timestamp, max_future) = (&self.listing.config.timestamp, self.listing.config.max_future);
        if let Some(times) = batch.column_by_name(timestamp) {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let refuse = |time| refuse_time(timestamp, time, place.ingested_at, max_future);
            // None is, if not the latest.
            let all_fit = times.null_count() == 0 && max(times).is_none_or(|latest| refuse(Some(latest)).is_none());
            let refused: BTreeMap<usize, String> = match all_fit {
                true => BTreeMap::new(),
                false => (0..).zip(times).filter_map(|(row, time)| Some((row, refuse(time)?))).collect(),
            };
            for (row, reason) in &refused {
                let Some(number) = numbers.get(*row) else { continue };
                rejects.push(place.reject(*number, row_json(&batch, *row), reason));
            }
            if !refused.is_empty() {
                let keep = |row: &usize| !refused.contains_key(row);
                let kept: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(&row))).collect();
                batch = filter_record_batch(&batch, &kept)?;
                numbers = (0..).zip(numbers).filter(|(row, _)| keep(row)).map(|(_, number)| number).collect();
            }
        }
        let rows = numbers.len();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if self.same.ingested_at != place.ingested_at || self.same.partitions.len() < rows {
            self.same = Same::new(place.ingested_at, rows);
        }
        columns.push(self.same.partitions.slice(0, rows));
        let offsets: Vec<i64> = numbers.iter().map(|row| offset(place.number, *row)).collect();
        columns.push(Arc::new(Int64Array::from(offsets)));
        columns.push(self.same.ingested.slice(0, rows));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl Same {
    fn new(ingested_at: i64, rows: usize) -> Same {
        let ingested = TimestampMicrosecondArray::from(vec![ingested_at; rows]).with_timezone("UTC");
        Same { ingested_at, partitions: Arc::new(Int32Array::from(vec![0; rows])), ingested: Arc::new(ingested) }
    }
}

/// What the events of a chunk have in common.
struct Place<'a> {
    number: usize,
    path: &'a Path,
    /// Where in the file its rows are counted from.
    from: u64,
    ingested_at: i64,
}

impl Place<'_> {
    fn reject(&self, row: u32, payload: Bytes, reason: &str) -> Reject {
        let start = if self.from > 0 { format!(", from byte {} on", self.from) } else { String::new() };
        let reason = format!("{}{start}, row {}: {reason}", self.path.display(), u64::from(row) + 1);
        Reject { offset: offset(self.number, row), ingested_at: self.ingested_at, payload, reason }
    }
}

fn offset(number: usize, row: u32) -> i64 {
    ((number as i64) << ROW_BITS) + i64::from(row)
}

/// A row as JSON: what a reject shows of a row whose text is gone.
pub(super) fn row_json(batch: &RecordBatch, row: usize) -> Bytes {
    let mut line = arrow::json::LineDelimitedWriter::new(Vec::new());
    let written = line.write(&batch.slice(row, 1)).and_then(|()| line.finish());
    written.map(|()| line.into_inner().into()).unwrap_or_default()
}
