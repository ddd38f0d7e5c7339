//! Pieces, their heads and their chunks. The layout is in the [module above](super).

use std::sync::Arc;

use arrow::array::Int64Array;

use super::bytes::{Reader, Writer};
use super::{column, state};
use crate::kernel::absorb::TAIL_TILES;
use crate::kernel::chunk::{Chunk, Span, Spanned, TAIL_ROWS};
use crate::kernel::compile::Kernel;
use crate::kernel::fold::State;
use crate::kernel::piece::Piece;
use crate::kernel::rows::EventRows;
use crate::kernel::tile::Tile;
use crate::kernel::{EncodingError, KernelError};

const ROWS: u8 = 0;
const TILES: u8 = 1;
const HASHES: u8 = 2;

/// Which of a head's parts are there; four numbers have the bits below.
pub(in crate::kernel) const HAS_BASE: u8 = 1 << 4;
pub(in crate::kernel) const HAS_ROWS: u8 = 1 << 5;
pub(in crate::kernel) const HAS_TILES: u8 = 1 << 6;

/// What changed in a piece since it was last written, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceDelta {
    /// Always written.
    pub head: Vec<u8>,
    /// Chunks that are new or changed, by id.
    pub chunks: Vec<(u32, Vec<u8>)>,
    /// Chunks that are gone. Their ids are never used again.
    pub removed: Vec<u32>,
}

impl Kernel {
    /// What changed since the last call, or since the piece was decoded; afterwards nothing has.
    pub fn encode_changes(&self, piece: &mut Piece) -> Result<PieceDelta, KernelError> {
        let mut chunks = Vec::new();
        write_changed(&mut piece.rows.0, (ROWS, TAIL_ROWS), &mut chunks, write_rows)?;
        write_changed(&mut piece.tiles, (TILES, TAIL_TILES), &mut chunks, |writer, tiles| {
            write_tiles(writer, tiles);
            Ok(())
        })?;
        write_changed(&mut piece.hashes, (HASHES, 0), &mut chunks, |writer, hashes| {
            write_hashes(writer, hashes);
            Ok(())
        })?;
        Ok(PieceDelta { head: write_head(piece)?, chunks, removed: std::mem::take(&mut piece.removed) })
    }

    /// Reads a piece back from its head and all of its chunks, in any order: what reads need.
    pub fn decode_piece<'a>(
        &self,
        partition: i32,
        head: &[u8],
        chunks: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Result<Piece, EncodingError> {
        let mut piece = self.decode_head(partition, head)?;
        for (id, bytes) in chunks {
            self.supply(&mut piece, id, bytes)?;
        }
        let missing = piece.rows.iter().find(|chunk| !chunk.is_loaded()).map(|chunk| chunk.id);
        let missing = missing.or_else(|| piece.tiles.iter().find(|chunk| !chunk.is_loaded()).map(|chunk| chunk.id));
        let missing = missing.or_else(|| piece.hashes.iter().find(|chunk| !chunk.is_loaded()).map(|chunk| chunk.id));
        match missing {
            Some(id) => Err(EncodingError::Corrupt { offset: 0, message: format!("chunk {id} is missing") }),
            None => Ok(piece),
        }
    }

    /// Loads a chunk that the piece's head names.
    pub fn supply(&self, piece: &mut Piece, id: u32, bytes: &[u8]) -> Result<(), EncodingError> {
        let mut reader = Reader::open(bytes)?;
        let kind = reader.byte()?;
        match kind {
            ROWS => {
                let rows = self.read_rows(&mut reader, piece.partition)?;
                put(&mut piece.rows.0, id, rows, reader)
            }
            TILES => {
                let tiles = self.read_tiles(&mut reader)?;
                put(&mut piece.tiles, id, tiles, reader)
            }
            HASHES => {
                let hashes = read_hashes(&mut reader)?;
                put(&mut piece.hashes, id, hashes, reader)
            }
            other => Err(reader.corrupt(format!("chunk kind {other}, expected 0, 1 or 2"))),
        }
    }

    /// Reads a piece back with its tails alone: what a fold begins with.
    pub fn decode_head(&self, partition: i32, head: &[u8]) -> Result<Piece, EncodingError> {
        let mut reader = Reader::open(head)?;
        let flags = reader.byte()?;
        if flags > 127 {
            return Err(reader.corrupt(format!("flags {flags}, expected 127 at most")));
        }
        let mut next = |bit: u8| {
            if flags >> bit & 1 == 1 { reader.signed().map(Some) } else { Ok(None) }
        };
        let mut piece = self.empty_piece(partition);
        piece.absorbed = next(0)?;
        piece.newest = next(1)?;
        piece.oldest = next(2)?;
        piece.complete_after = next(3)?;
        piece.next_chunk = read_id(&mut reader)?;
        piece.rows.0 = read_spans(&mut reader)?;
        piece.tiles = read_spans(&mut reader)?;
        for _ in 0..reader.length(2)? {
            let (id, len) = (read_id(&mut reader)?, read_len(&mut reader)?);
            piece.hashes.push(Chunk::stored(id, Span { len, first: 0, last: 0 }));
        }
        if flags & HAS_BASE != 0 {
            let folds = self.base.as_ref().ok_or_else(|| reader.corrupt("a base, which this view doesn't have"))?;
            let states: Result<Vec<State>, _> =
                folds.iter().map(|fold| state::read(&mut reader, &self.folds[*fold])).collect();
            piece.base = Some(Arc::new(states?));
        }
        if flags & HAS_ROWS != 0 {
            let rows = self.read_rows(&mut reader, partition)?;
            put_tail(&mut piece.rows.0, rows, &reader)?;
        }
        if flags & HAS_TILES != 0 {
            let tiles = self.read_tiles(&mut reader)?;
            put_tail(&mut piece.tiles, tiles, &reader)?;
        }
        reader.close()?;
        Ok(piece)
    }

    fn read_rows(&self, reader: &mut Reader<'_>, partition: i32) -> Result<EventRows, EncodingError> {
        let rows = reader.length(2)?;
        if rows == 0 {
            return Err(reader.corrupt("a chunk without rows"));
        }
        let mut times = vec![reader.signed()?];
        for _ in 1..rows {
            let delta = reader.unsigned()?;
            let time = i64::try_from(i128::from(times[times.len() - 1]) + i128::from(delta));
            times.push(time.map_err(|_| reader.corrupt("an event time longer than 64 bits"))?);
        }
        let mut offsets = vec![reader.signed()?];
        for _ in 1..rows {
            offsets.push(offsets[offsets.len() - 1].wrapping_add(reader.signed()?));
        }
        let ids = self.spec.event_id.as_ref().map(|field| column::read(reader, field.data_type(), rows)).transpose()?;
        let columns = self.spec.columns.iter().map(|field| column::read(reader, field.data_type(), rows));
        Ok(EventRows {
            times: Int64Array::from(times),
            partition,
            offsets: Int64Array::from(offsets),
            ids,
            columns: columns.collect::<Result<_, _>>()?,
        })
    }

    fn read_tiles(&self, reader: &mut Reader<'_>) -> Result<Vec<Arc<Tile>>, EncodingError> {
        let count = reader.length(4)?;
        if count == 0 || self.spec.tile.is_none() {
            return Err(reader.corrupt(format!("{count} tiles, expected some, and of a tiled view")));
        }
        let mut tiles: Vec<Arc<Tile>> = Vec::with_capacity(count);
        for _ in 0..count {
            let start = reader.signed()?;
            if tiles.last().is_some_and(|tile| tile.start >= start) {
                return Err(reader.corrupt("tiles that don't ascend"));
            }
            let min = i128::from(start) + i128::from(reader.unsigned()?);
            let max = min + i128::from(reader.unsigned()?);
            let (Ok(min), Ok(max)) = (i64::try_from(min), i64::try_from(max)) else {
                return Err(reader.corrupt("an event time longer than 64 bits"));
            };
            let hashes = read_hashes(reader)?;
            let states = self.folds.iter().map(|fold| state::read(reader, fold)).collect::<Result<_, _>>()?;
            tiles.push(Arc::new(Tile { start, min, max, hashes, states }));
        }
        Ok(tiles)
    }
}

/// Writes the chunks that changed, but for a tail, which goes into the head.
fn write_changed<T: Spanned>(
    chunks: &mut [Chunk<T>],
    (kind, tail): (u8, usize),
    written: &mut Vec<(u32, Vec<u8>)>,
    write: impl Fn(&mut Writer, &T) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let newest = chunks.len().saturating_sub(1);
    for (index, chunk) in chunks.iter_mut().enumerate() {
        if (chunk.dirty || !chunk.stored) && !(index == newest && chunk.is_tail(tail)) {
            let mut writer = Writer::versioned();
            writer.byte(kind);
            write(&mut writer, chunk.data()?)?;
            written.push((chunk.id, writer.sealed()));
            chunk.stored = true;
        }
        chunk.dirty = false;
    }
    Ok(())
}

fn write_rows(writer: &mut Writer, rows: &EventRows) -> Result<(), KernelError> {
    writer.length(rows.len());
    let times = rows.times.values();
    if let Some(first) = times.first() {
        writer.signed(*first);
    }
    times.windows(2).for_each(|pair| writer.unsigned(pair[1].wrapping_sub(pair[0]) as u64));
    let offsets = rows.offsets.values();
    if let Some(first) = offsets.first() {
        writer.signed(*first);
    }
    offsets.windows(2).for_each(|pair| writer.signed(pair[1].wrapping_sub(pair[0])));
    rows.ids.iter().chain(&rows.columns).try_for_each(|array| column::write(writer, array))
}

fn write_head(piece: &Piece) -> Result<Vec<u8>, KernelError> {
    let numbers = [piece.absorbed, piece.newest, piece.oldest, piece.complete_after];
    let mut writer = Writer::versioned();
    let rows = piece.rows.0.last().filter(|chunk| chunk.is_tail(TAIL_ROWS));
    let tiles = piece.tiles.last().filter(|chunk| chunk.is_tail(TAIL_TILES));
    let parts = [(HAS_BASE, piece.base.is_some()), (HAS_ROWS, rows.is_some()), (HAS_TILES, tiles.is_some())];
    let parts: u8 = parts.iter().filter(|(_, there)| *there).map(|(flag, _)| flag).sum();
    writer.byte(parts | present(&numbers));
    numbers.into_iter().flatten().for_each(|number| writer.signed(number));
    writer.unsigned(u64::from(piece.next_chunk));
    write_spans(&mut writer, &piece.rows.0);
    write_spans(&mut writer, &piece.tiles);
    writer.length(piece.hashes.len());
    for chunk in &piece.hashes {
        writer.unsigned(u64::from(chunk.id));
        writer.length(chunk.span.len);
    }
    piece.base.iter().flat_map(|base| base.iter()).for_each(|base| state::write(&mut writer, base));
    if let Some(chunk) = rows {
        write_rows(&mut writer, chunk.data()?)?;
    }
    if let Some(chunk) = tiles {
        write_tiles(&mut writer, chunk.data()?);
    }
    Ok(writer.sealed())
}

/// The bits of those numbers that are there.
pub(in crate::kernel) fn present(numbers: &[Option<i64>; 4]) -> u8 {
    numbers.iter().zip(0..).map(|(number, bit)| u8::from(number.is_some()) << bit).sum()
}

fn write_spans<T>(writer: &mut Writer, chunks: &[Chunk<T>]) {
    writer.length(chunks.len());
    let mut before = 0i64;
    for Chunk { id, span, .. } in chunks {
        writer.unsigned(u64::from(*id));
        writer.length(span.len);
        writer.signed(span.first.wrapping_sub(before));
        writer.unsigned(span.last.wrapping_sub(span.first) as u64);
        before = span.last;
    }
}

fn read_spans<T: Spanned>(reader: &mut Reader<'_>) -> Result<Vec<Chunk<T>>, EncodingError> {
    let mut before = 0i64;
    let mut chunks: Vec<Chunk<T>> = vec![];
    for _ in 0..reader.length(4)? {
        let (id, len) = (read_id(reader)?, read_len(reader)?);
        let first = before.wrapping_add(reader.signed()?);
        let last = first.wrapping_add(reader.unsigned()? as i64);
        if last < first || (!chunks.is_empty() && first < before) {
            return Err(reader.corrupt("spans of chunks that don't ascend"));
        }
        chunks.push(Chunk::stored(id, Span { len, first, last }));
        before = last;
    }
    Ok(chunks)
}

fn read_id(reader: &mut Reader<'_>) -> Result<u32, EncodingError> {
    let id = reader.unsigned()?;
    u32::try_from(id).map_err(|_| reader.corrupt(format!("chunk id {id}")))
}

/// How many things a chunk holds. No chunk holds as many as this allows.
fn read_len(reader: &mut Reader<'_>) -> Result<usize, EncodingError> {
    let len = reader.unsigned()?;
    let fits = usize::try_from(len).ok().filter(|len| (1..=1 << 24).contains(len));
    fits.ok_or_else(|| reader.corrupt(format!("a chunk of {len}")))
}

/// Puts what was read of a chunk in its place; it must be what the head says.
fn put<T: Spanned>(chunks: &mut [Chunk<T>], id: u32, data: T, reader: Reader<'_>) -> Result<(), EncodingError> {
    let Some(chunk) = chunks.iter_mut().find(|chunk| chunk.id == id) else {
        return Err(reader.corrupt(format!("chunk {id}, which the head doesn't name")));
    };
    if chunk.span != data.span() {
        return Err(reader.corrupt(format!("chunk {id} is {:?}, the head says {:?}", data.span(), chunk.span)));
    }
    reader.close()?;
    if !chunk.dirty && chunk.stored {
        chunk.data = Some(data);
    }
    Ok(())
}

/// Puts what the head holds of the newest chunk in its place.
fn put_tail<T: Spanned>(chunks: &mut [Chunk<T>], data: T, reader: &Reader<'_>) -> Result<(), EncodingError> {
    match chunks.last_mut() {
        Some(chunk) if chunk.span == data.span() => {
            (chunk.stored, chunk.data) = (false, Some(data));
            Ok(())
        }
        other => {
            let named = other.map(|chunk| chunk.span);
            Err(reader.corrupt(format!("the newest chunk is {:?}, the spans say {named:?}", data.span())))
        }
    }
}

fn write_tiles(writer: &mut Writer, tiles: &[Arc<Tile>]) {
    writer.length(tiles.len());
    for tile in tiles {
        writer.signed(tile.start);
        writer.unsigned(tile.min.wrapping_sub(tile.start) as u64);
        writer.unsigned(tile.max.wrapping_sub(tile.min) as u64);
        write_hashes(writer, &tile.hashes);
        tile.states.iter().for_each(|held| state::write(writer, held));
    }
}

fn write_hashes(writer: &mut Writer, hashes: &[u64]) {
    writer.length(hashes.len());
    hashes.iter().for_each(|hash| writer.bytes(&hash.to_le_bytes()));
}

fn read_hashes(reader: &mut Reader<'_>) -> Result<Vec<u64>, EncodingError> {
    let count = reader.length(8)?;
    (0..count).map(|_| reader.array().map(u64::from_le_bytes)).collect()
}
