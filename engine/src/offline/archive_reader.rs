//! The archive by offsets: what was accepted once, read again in the order in which it came.
//!
//! Guarantees: reads the archive as it was when the reader was opened or refreshed, every row once, in offset order. An event that is
//! read here was judged when it came: nothing that changed since (a limit, a contract) refuses it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::archive::{archive_files, last_offset};
use super::older_files::OlderFiles;
use super::{OfflineError, Storage, archive_ends, failed};
use crate::source::{Contract, OFFSET, event_schema};

/// Rows that are unpacked at once.
const ROWS: usize = 8192;

/// Reads one source's archive.
pub struct ArchiveReader {
    storage: Storage,
    source: String,
    schema: SchemaRef,
    older: OlderFiles,
    partitions: BTreeMap<i32, Partition>,
    /// The file that the last read was in, and rows of it that are unpacked already.
    open: Option<Open>,
}

#[derive(Debug)]
struct Partition {
    /// By first offset.
    files: Vec<(i64, ObjectMeta)>,
    /// After the last event, and what was refused after it.
    end: i64,
}

struct Open {
    partition: i32,
    file: usize,
    rows: ParquetRecordBatchReader,
    /// The columns of today over the file's.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    ahead: Option<RecordBatch>,
    /// Rows before this offset were read already.
    next: i64,
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
        let partitions = partitions(&storage, source).await?;
        Ok(ArchiveReader { storage, source: source.to_owned(), schema, older, partitions, open: None })
    }

    /// Looks up anew what is there.
    pub async fn refresh(&mut self) -> Result<(), OfflineError> {
        self.partitions = partitions(&self.storage, &self.source).await?;
        self.open = None;
        Ok(())
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
        let Some(held) = self.partitions.get(&partition) else {
            return Ok(None);
        };
        let files = held.files.len();
        let mut file = held.files.partition_point(|(first, _)| *first <= from).saturating_sub(1);
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
        let Some((_, meta)) = self.partitions.get(&partition).and_then(|held| held.files.get(file)) else {
            return Ok(None);
        };
        let mut open = match self.open.take() {
            Some(open) if open.partition == partition && open.file == file && open.next <= from => open,
            _ => {
                let bytes = self.storage.get(&meta.location).await?;
                let builder =
                    ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed(&meta.location, "can't read"))?;
                let columns = self.columns(builder.schema()).map_err(failed(&meta.location, "can't read"))?;
                let rows = builder.with_batch_size(ROWS).build().map_err(failed(&meta.location, "can't read"))?;
                Open { partition, file, rows, columns, ahead: None, next: i64::MIN }
            }
        };
        loop {
            let rows = match open.ahead.take() {
                Some(rows) => rows,
                None => match open.rows.next() {
                    Some(rows) => {
                        let rows = rows.map_err(failed(&meta.location, "can't read"))?;
                        self.conform(&open.columns, &rows).map_err(failed(&meta.location, "can't read"))?
                    }
                    None => return Ok(None),
                },
            };
            let known = offsets(&rows).partition_point(|offset| *offset < from);
            if known == rows.num_rows() {
                continue;
            }
            let length = (rows.num_rows() - known).min(most.max(1));
            let taken = rows.slice(known, length);
            if known + length < rows.num_rows() {
                open.ahead = Some(rows.slice(known + length, rows.num_rows() - known - length));
            }
            open.next = offsets(&taken).last().map_or(from, |last| last + 1);
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

async fn partitions(storage: &Storage, source: &str) -> Result<BTreeMap<i32, Partition>, OfflineError> {
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    for (partition, first, file) in archive_files(storage, source).await? {
        partitions.entry(partition).or_insert(Partition { files: vec![], end: 0 }).files.push((first, file));
    }
    let mut ends = BTreeMap::new();
    for (partition, held) in &partitions {
        if let Some((_, newest)) = held.files.last() {
            ends.insert(*partition, last_offset(storage, newest).await? + 1);
        }
    }
    for (partition, end) in archive_ends::beyond(storage, source, ends).await? {
        partitions.entry(partition).or_insert(Partition { files: vec![], end }).end = end;
    }
    Ok(partitions)
}

fn offsets(rows: &RecordBatch) -> &[i64] {
    rows.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>()).map_or(&[], |c| c.values())
}
