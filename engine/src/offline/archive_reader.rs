//! The archive by offsets: what was accepted once, read again in the order in which it came.
//!
//! Guarantees: reads the archive as it was when the reader was opened or refreshed, every row once, in offset order, also where files
//! were compacted, then or meanwhile. An event that is read here was judged when it came: nothing that changed since (a limit, a
//! contract) refuses it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::archive_files::{ArchiveFile, ends, list_archive};
use super::clustered::{Clustered, offsets_in};
use super::older_files::OlderFiles;
use super::retention::Removed;
use super::{OfflineError, Storage, archive_ends, failed};
use crate::source::{Contract, event_schema};

/// Rows that are unpacked at once.
const ROWS: usize = 8192;

/// Reads one source's archive.
pub struct ArchiveReader {
    storage: Storage,
    source: String,
    schema: SchemaRef,
    older: OlderFiles,
    partitions: BTreeMap<i32, Partition>,
    removed: Removed,
    /// The file that the last read was in, and rows of it that are unpacked already.
    open: Option<Open>,
}

#[derive(Debug)]
struct Partition {
    /// By first offset.
    files: Vec<ArchiveFile>,
    /// After the last event, and what was refused after it.
    end: i64,
}

struct Open {
    partition: i32,
    file: usize,
    rows: Rows,
    /// The columns of today over the file's.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    ahead: Option<RecordBatch>,
    /// Rows before this offset were read already.
    next: i64,
}

/// The rows of a file, in offset order.
enum Rows {
    AsTheyLie(ParquetRecordBatchReader),
    Clustered(Clustered),
}

impl Rows {
    fn open(bytes: Bytes, file: &ArchiveFile) -> Result<(Rows, SchemaRef), ParquetError> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default())?;
        let schema = metadata.schema().clone();
        let rows = match file.last {
            Some(_) => Rows::Clustered(Clustered::open(bytes, metadata)?),
            None => {
                let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
                Rows::AsTheyLie(builder.with_batch_size(ROWS).build()?)
            }
        };
        Ok((rows, schema))
    }

    /// Some rows, among them those that come next at and after an offset.
    fn next(&mut self, from: i64) -> Result<Option<RecordBatch>, ParquetError> {
        match self {
            Rows::AsTheyLie(rows) => Ok(rows.next().transpose()?),
            Rows::Clustered(rows) => rows.read(from).transpose(),
        }
    }
}

impl fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl ArchiveReader {
    /// Looks up what is there. Rows come under the contract of today, as [`archive_table`](super::archive_table) has them.
    pub async fn open(storage: Storage, source: &str, contract: &Arc<Contract>) -> Result<ArchiveReader, OfflineError> {
        let older = OlderFiles::new(source, Arc::clone(contract)).map_err(failed(&Path::from(source), "no reader"))?;
        let schema = event_schema(contract.columns());
        let (partitions, removed) = partitions(&storage, source).await?;
        Ok(ArchiveReader { storage, source: source.to_owned(), schema, older, partitions, removed, open: None })
    }

    /// Looks up anew what is there.
    pub async fn refresh(&mut self) -> Result<(), OfflineError> {
        (self.partitions, self.removed) = partitions(&self.storage, &self.source).await?;
        self.open = None;
        Ok(())
    }

    /// What retention removed, as far as it is known: a read that didn't find what it removed since knows of it afterwards.
    pub fn removed(&self) -> &Removed {
        &self.removed
    }

    /// Of the rows that are read.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The offset below which every event of a partition was archived or refused.
    pub fn end(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |held| held.end)
    }

    /// The [end](Self::end) of each partition.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.partitions.iter().map(|(partition, held)| (*partition, held.end)).collect()
    }

    /// Events at and after an offset below the [end](Self::end), at least one and at most `most`; none where all that there is up
    /// to the end was refused.
    pub async fn read(&mut self, partition: i32, from: i64, most: usize) -> Result<Option<RecordBatch>, OfflineError> {
        let mut missed = None;
        loop {
            match self.read_on(partition, from, most).await {
                // Compacted since the archive was listed; its rows are in another file now. What came since stays unread.
                Err(OfflineError::Gone { path }) if missed.as_ref() != Some(&path) => {
                    missed = Some(path);
                    let ends = self.ends();
                    self.refresh().await?;
                    for (partition, held) in &mut self.partitions {
                        held.end = held.end.min(ends.get(partition).copied().unwrap_or(0));
                    }
                }
                read => {
                    let end = self.end(partition);
                    let below = |rows: RecordBatch| {
                        let known = offsets_in(&rows).partition_point(|offset| *offset < end);
                        (known > 0).then(|| rows.slice(0, known))
                    };
                    return Ok(read?.and_then(below));
                }
            }
        }
    }

    async fn read_on(&mut self, partition: i32, from: i64, most: usize) -> Result<Option<RecordBatch>, OfflineError> {
        let Some(held) = self.partitions.get(&partition) else {
            return Ok(None);
        };
        let files = held.files.len();
        let mut file = held.files.partition_point(|file| file.first <= from).saturating_sub(1);
        while file < files {
            if let Some(rows) = self.read_file(partition, file, from, most).await? {
                return Ok(Some(rows));
            }
            file += 1;
        }
        Ok(None)
    }

    async fn read_file(
        &mut self,
        partition: i32,
        file: usize,
        from: i64,
        most: usize,
    ) -> Result<Option<RecordBatch>, OfflineError> {
        let Some(held) = self.partitions.get(&partition).and_then(|held| held.files.get(file)) else {
            return Ok(None);
        };
        let unread = |e: String| failed(&held.meta.location, "can't read")(e);
        let mut open = match self.open.take() {
            Some(open) if open.partition == partition && open.file == file && open.next <= from => open,
            _ => {
                let bytes = self.storage.get(&held.meta.location).await?;
                let (rows, schema) = Rows::open(bytes, held).map_err(|e| unread(e.to_string()))?;
                let columns = self.columns(&schema).map_err(|e| unread(e.to_string()))?;
                Open { partition, file, rows, columns, ahead: None, next: i64::MIN }
            }
        };
        loop {
            let rows = match open.ahead.take() {
                Some(rows) => rows,
                None => match open.rows.next(from).map_err(|e| unread(e.to_string()))? {
                    Some(rows) => self.conform(&open.columns, &rows).map_err(|e| unread(e.to_string()))?,
                    None => return Ok(None),
                },
            };
            let known = offsets_in(&rows).partition_point(|offset| *offset < from);
            if known == rows.num_rows() {
                continue;
            }
            let length = (rows.num_rows() - known).min(most.max(1));
            let taken = rows.slice(known, length);
            if known + length < rows.num_rows() {
                open.ahead = Some(rows.slice(known + length, rows.num_rows() - known - length));
            }
            open.next = offsets_in(&taken).last().map_or(from, |last| last + 1);
            self.open = Some(open);
            return Ok(Some(taken));
        }
    }
}

impl ArchiveReader {
    fn columns(&self, file: &SchemaRef) -> DfResult<Vec<Arc<dyn PhysicalExpr>>> {
        let adapter = self.older.create(Arc::clone(&self.schema), Arc::clone(file))?;
        let columns = self.schema.fields().iter().enumerate();
        columns.map(|(i, field)| adapter.rewrite(Arc::new(Column::new(field.name(), i)))).collect()
    }

    fn conform(&self, columns: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> DfResult<RecordBatch> {
        let columns = columns.iter().map(|column| column.evaluate(rows)?.into_array(rows.num_rows()));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<DfResult<_>>()?)?)
    }
}

async fn partitions(storage: &Storage, source: &str) -> Result<(BTreeMap<i32, Partition>, Removed), OfflineError> {
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    let files = list_archive(storage, source).await?;
    for file in &files.counting {
        partitions.entry(file.partition).or_insert(Partition { files: vec![], end: 0 }).files.push(file.clone());
    }
    for (partition, end) in archive_ends::beyond(storage, source, ends(storage, &files).await?).await? {
        partitions.entry(partition).or_insert(Partition { files: vec![], end }).end = end;
    }
    Ok((partitions, files.removed))
}
