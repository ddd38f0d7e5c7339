//! The rows of a Parquet file. Half of its columns are decoded in a thread of their own: to decode is most of what reading a file takes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::rows::{Rows, columnar};

/// Rows that are decoded at once: between threads that wait for each other, fewer wait longer.
const CHUNK_ROWS: usize = 16_384;
/// Bytes of a page's header, about, which is read byte by byte.
const HEADER: usize = 512;
/// Chunks that the other thread is ahead by, at most: pages, which are unpacked whole, are longer than chunks.
const AHEAD: usize = 8;

/// A file's rows from one of them on, see [`super::rows::open`].
pub(super) fn open(file: File, columns: SchemaRef, only: Option<&BTreeSet<String>>, from: u32) -> Result<Rows, String> {
    let file = Shared::new(file).map_err(|e| e.to_string())?;
    let metadata = ArrowReaderMetadata::load(&file, Default::default()).map_err(|e| e.to_string())?;
    let needed = |stored: &Field| match columns.field_with_name(stored.name()) {
        Ok(column) => {
            let fits = stored.data_type() == column.data_type() && (column.is_nullable() || !stored.is_nullable());
            only.is_none_or(|only| only.contains(stored.name())) || !fits
        }
        Err(_) => only.is_none(),
    };
    let stored = metadata.schema().fields();
    let (kept, pruned): (Vec<usize>, Vec<usize>) = (0..stored.len()).partition(|place| needed(&stored[*place]));
    let pruned: BTreeSet<&str> = pruned.into_iter().map(|place| stored[place].name().as_str()).collect();
    // What isn't read is NULL here, and no row's fault.
    let fields = columns.fields().iter().map(|field| {
        let pruned = pruned.contains(field.name().as_str());
        field.as_ref().clone().with_nullable(field.is_nullable() || pruned)
    });
    let shown = Arc::new(Schema::new(fields.collect::<Vec<_>>()));

    let (here, beside) = halves(&metadata, kept);
    let reader = |kept: Vec<usize>| -> Result<ParquetRecordBatchReader, String> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
        let builder = builder.with_projection(mask).with_batch_size(CHUNK_ROWS).with_offset(from as usize);
        builder.build().map_err(|e| e.to_string())
    };
    let batches =
        Batches { here: reader(here)?, beside: if beside.is_empty() { None } else { Some(ahead(reader(beside)?)?) } };
    let mut next = from;
    Ok(Box::new(batches.map(move |batch| columnar(batch?, &mut next, &shown))))
}

/// Two parts of some columns with about as much to decode; one is empty where there is little to gain.
fn halves(metadata: &ArrowReaderMetadata, mut columns: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    if metadata.metadata().file_metadata().num_rows() <= CHUNK_ROWS as i64 {
        return (columns, vec![]);
    }
    let schema = metadata.parquet_schema();
    let mut sizes = vec![0; metadata.schema().fields().len()];
    for group in metadata.metadata().row_groups() {
        for (leaf, column) in group.columns().iter().enumerate() {
            sizes[schema.get_column_root_idx(leaf)] += column.uncompressed_size();
        }
    }
    columns.sort_by_key(|column| sizes[*column]);
    let (mut here, mut beside) = ((vec![], 0), (vec![], 0));
    for column in columns.into_iter().rev() {
        let lighter = if here.1 <= beside.1 { &mut here } else { &mut beside };
        lighter.0.push(column);
        lighter.1 += sizes[column];
    }
    (here.0, beside.0)
}

/// The batches of both parts, side by side.
struct Batches {
    here: ParquetRecordBatchReader,
    beside: Option<Receiver<Result<RecordBatch, String>>>,
}

/// Reads in a thread that ends when nobody takes what it reads.
fn ahead(reader: ParquetRecordBatchReader) -> Result<Receiver<Result<RecordBatch, String>>, String> {
    let (give, take) = sync_channel(AHEAD);
    let read = move || {
        for batch in reader {
            if give.send(batch.map_err(|e| e.to_string())).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("parquet".into()).spawn(read).map_err(|e| format!("can't start a thread: {e}"))?;
    Ok(take)
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let here = self.here.next().map(|batch| batch.map_err(|e| e.to_string()));
        let Some(beside) = &self.beside else { return here };
        let both = match (here, beside.recv().ok()) {
            (None, None) => return None,
            (Some(here), Some(beside)) => here.and_then(|here| Ok((here, beside?))),
            (Some(Err(error)), None) | (None, Some(Err(error))) => Err(error),
            _ => Err("its columns are of different lengths".to_owned()),
        };
        Some(both.and_then(|(here, beside)| {
            let fields = here.schema().fields().iter().chain(beside.schema().fields()).cloned().collect::<Vec<_>>();
            let columns = here.columns().iter().chain(beside.columns()).cloned().collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
        }))
    }
}

/// A file that several read at once, each at its own place.
#[derive(Clone)]
struct Shared {
    file: Arc<File>,
    length: u64,
}

impl Shared {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { length: file.metadata()?.len(), file: Arc::new(file) })
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Shared {
    type T = BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> Result<BufReader<ReadFrom>, ParquetError> {
        Ok(BufReader::with_capacity(HEADER, ReadFrom { file: self.file.clone(), place: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Reads a file from a place on.
struct ReadFrom {
    file: Arc<File>,
    place: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}
