//! A position in the files of a location, and the events from there.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;

use super::super::event_time::refuse_time;
use super::super::{Reject, SourceBatch, SourceError};
use super::ROW_BITS;
use super::convert::Chunk;
use super::listing::{ListedFile, Listing};
use super::rows::{self, Rows};

const ROW_MASK: i64 = (1 << ROW_BITS) - 1;

/// Reads the files of a listing; keeps the one it is in open.
pub(super) struct Reader {
    listing: Listing,
    columns: SchemaRef,
    schema: SchemaRef,
    timestamp: String,
    max_future: i64,
    cursor: Option<Cursor>,
}

/// An open file, and where in it the next chunk starts.
struct Cursor {
    file: usize,
    row: u32,
    rows: Rows,
    /// Read ahead, to know whether a chunk is a file's last.
    ahead: Option<Result<Chunk, String>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.cursor.as_ref().map(|cursor| (cursor.file, cursor.row));
        f.debug_struct("Reader").field("listing", &self.listing).field("at", &at).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(
        listing: Listing,
        columns: SchemaRef,
        schema: SchemaRef,
        timestamp: String,
        max_future: i64,
    ) -> Reader {
        Reader { listing, columns, schema, timestamp, max_future, cursor: None }
    }

    pub(super) fn known_files(&self) -> usize {
        self.listing.files.len()
    }

    /// The offset after the last row of the last file.
    pub(super) fn end_offset(&mut self) -> Result<i64, SourceError> {
        self.listing.refresh()?;
        Ok(offset(self.listing.files.len(), 0))
    }

    /// Events from an offset on, of one file; at a file's end the next offset is the next file's first.
    pub(super) fn read(&mut self, from: i64, max: usize) -> Result<Option<SourceBatch>, SourceError> {
        let mut at = from;
        loop {
            let (index, row) = ((at >> ROW_BITS) as usize, (at & ROW_MASK) as u32);
            if index >= self.listing.files.len() {
                self.listing.refresh()?;
            }
            let Some(file) = self.listing.files.get(index).cloned() else {
                // Files without rows may have been stepped over.
                return if at > from { self.batch(from, at, Vec::new(), None).map(Some) } else { Ok(None) };
            };
            let after = offset(index + 1, 0);
            let next = self.next_chunk(index, row, &file, max);
            let (chunk, last) = match next {
                Ok(Some(next)) => next,
                Ok(None) => {
                    at = after;
                    continue;
                }
                Err(reason) => {
                    self.cursor = None;
                    let whole = if row == 0 { "the file" } else { "the rest of the file" };
                    let reject = Reject {
                        offset: at,
                        ingested_at: file.modified,
                        payload: Bytes::from(file.path.to_string_lossy().into_owned()),
                        reason: format!("{}: {whole} can't be read: {reason}", file.path.display()),
                    };
                    return self.batch(from, after, vec![reject], None).map(Some);
                }
            };
            let next_offset = if last { after } else { offset(index, chunk.first + chunk.rows) };
            return self.batch(from, next_offset, Vec::new(), Some((index, &file, chunk))).map(Some);
        }
    }

    /// The next chunk of a file from a row on, and whether it is the last; nothing at the file's end.
    fn next_chunk(
        &mut self,
        index: usize,
        row: u32,
        file: &ListedFile,
        max: usize,
    ) -> Result<Option<(Chunk, bool)>, String> {
        let cursor = match self.cursor.take() {
            Some(cursor) if cursor.file == index && cursor.row == row => cursor,
            _ => {
                let mut rows = rows::open(&file.path, self.listing.format, &self.columns, row)?;
                let ahead = rows.next();
                Cursor { file: index, row, rows, ahead }
            }
        };
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
            Some(Err(reason)) => return Err(reason),
            None => return Ok(None),
        };
        cursor.row = chunk.first + chunk.rows;
        let last = cursor.ahead.is_none();
        Ok(Some((chunk, last)))
    }

    fn batch(
        &self,
        first_offset: i64,
        next_offset: i64,
        mut rejects: Vec<Reject>,
        chunk: Option<(usize, &ListedFile, Chunk)>,
    ) -> Result<SourceBatch, SourceError> {
        let mut events = RecordBatch::new_empty(Arc::clone(&self.schema));
        if let Some((index, file, chunk)) = chunk {
            events = self.events(index, file, chunk, &mut rejects).map_err(|e| SourceError::Internal {
                source_name: self.listing.source.clone(),
                what: format!("{}: {e}", file.path.display()),
            })?;
        }
        rejects.sort_by_key(|reject| reject.offset);
        Ok(SourceBatch { partition: 0, first_offset, next_offset, events, rejects })
    }

    /// A chunk with the platform's columns; rows whose time is refused join the rejects.
    fn events(
        &self,
        index: usize,
        file: &ListedFile,
        chunk: Chunk,
        rejects: &mut Vec<Reject>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let Chunk { mut batch, mut numbers, rejects: bad, .. } = chunk;
        let place = |number: u32| format!("{}, row {}", file.path.display(), u64::from(number) + 1);
        rejects.extend(bad.into_iter().map(|bad| Reject {
            offset: offset(index, bad.number),
            ingested_at: file.modified,
            payload: bad.payload,
            reason: format!("{}: {}", place(bad.number), bad.reason),
        }));
        if let Some(times) = batch.column_by_name(&self.timestamp) {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let refused: Vec<Option<String>> =
                times.iter().map(|time| refuse_time(&self.timestamp, time, file.modified, self.max_future)).collect();
            for ((row, number), reason) in numbers.iter().enumerate().zip(&refused) {
                let Some(reason) = reason else { continue };
                rejects.push(Reject {
                    offset: offset(index, *number),
                    ingested_at: file.modified,
                    payload: row_json(&batch, row),
                    reason: format!("{}: {reason}", place(*number)),
                });
            }
            if refused.iter().any(Option::is_some) {
                let keep: BooleanArray = refused.iter().map(|reason| Some(reason.is_none())).collect();
                batch = filter_record_batch(&batch, &keep)?;
                numbers = numbers.into_iter().zip(refused).filter(|(_, r)| r.is_none()).map(|(n, _)| n).collect();
            }
        }
        let rows = numbers.len();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(Int32Array::from(vec![0; rows])));
        columns.push(Arc::new(numbers.iter().map(|number| offset(index, *number)).collect::<Int64Array>()));
        let ingested = TimestampMicrosecondArray::from(vec![file.modified; rows]);
        columns.push(Arc::new(ingested.with_timezone("UTC")));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn offset(file: usize, row: u32) -> i64 {
    ((file as i64) << ROW_BITS) + i64::from(row)
}

/// A row as JSON: what a reject shows of a row whose text is gone.
pub(super) fn row_json(batch: &RecordBatch, row: usize) -> Bytes {
    let mut line = arrow::json::LineDelimitedWriter::new(Vec::new());
    let written = line.write(&batch.slice(row, 1)).and_then(|()| line.finish());
    written.map(|()| line.into_inner().into()).unwrap_or_default()
}
