//! The archive: every accepted event, as Parquet, `archive/<source>/ingest_date=YYYY-MM-DD/<partition>-<first offset>.parquet`.
//!
//! Guarantees: after [`ArchiveWriter::flush`] every event appended is durable, once. A file's name and folder
//! depend only on its first event. A replay may append from any earlier offset: what the archive holds
//! already is skipped, so that no row is ever there twice, wherever files were cut the time before. It
//! relies on the source: an offset always reads the same event.
//!
//! What was refused after the last event of a partition is remembered beside its files, see [`super::archive_ends`].
//!
//! A partition has one writer at a time, and one that doesn't know yet that it has lost the partition is fenced: the
//! next file's name follows from what is durable, and a file that is there is never replaced. Who finds its name taken
//! ([`OfflineError::Conflict`]) looks up anew what there is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tokio::task::JoinHandle;

use super::archive_files::{last_events, stream_name};
use super::{OfflineError, Storage, archive_ends, failed};
use crate::source::{INGESTED_AT, OFFSET};

/// Rows after which a file is cut.
pub const ARCHIVE_ROWS_PER_FILE: usize = 1_000_000;
/// Small enough that a scan for a stretch of time skips most of a file.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Appends the events of one source.
#[derive(Debug)]
pub struct ArchiveWriter {
    storage: Storage,
    source: String,
    schema: SchemaRef,
    rows_per_file: usize,
    partitions: BTreeMap<i32, Pending>,
}

/// What a partition has in the archive and on the way to it.
#[derive(Debug, Default)]
struct Pending {
    /// Every event below is durable.
    durable: i64,
    /// After the last event that is.
    last: i64,
    /// Every event below was appended.
    next: i64,
    /// Files that are whole, and not written yet.
    whole: VecDeque<Whole>,
    /// The file that grows.
    open: Option<Open>,
}

#[derive(Debug)]
struct Whole {
    path: Path,
    bytes: Bytes,
    rows: usize,
    next_offset: i64,
}

/// A file in the making: encoded as its events come, beside what the caller does, so that a flush has little left to do.
#[derive(Debug)]
struct Open {
    path: Path,
    rows: usize,
    next_offset: i64,
    /// Ends once all that was pushed is encoded.
    writer: JoinHandle<Result<ArrowWriter<Vec<u8>>, String>>,
}

impl ArchiveWriter {
    /// A writer for events of `schema` (a source's, see [`crate::source::event_schema`]). Looks up what is
    /// there already. Files are cut at `rows_per_file`, see [`ARCHIVE_ROWS_PER_FILE`].
    pub async fn open(
        storage: Storage,
        source: &str,
        schema: SchemaRef,
        rows_per_file: usize,
    ) -> Result<ArchiveWriter, OfflineError> {
        storage.sweep(&storage.path(&["archive", source])).await?;
        let partitions = Pending::known(&storage, source).await?;
        Ok(ArchiveWriter { storage, source: source.into(), schema, rows_per_file: rows_per_file.max(1), partitions })
    }

    /// Looks up anew what partitions have, and forgets what was on the way: another instance may have written them.
    pub async fn adopt(&mut self, partitions: &[i32]) -> Result<(), OfflineError> {
        let mut known = Pending::known(&self.storage, &self.source).await?;
        for partition in partitions {
            self.partitions.insert(*partition, known.remove(partition).unwrap_or_default());
        }
        Ok(())
    }

    /// Forgets a partition that another instance writes from now on.
    pub fn release(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Takes a stretch of a partition: its events in offset order, everything below `next_offset`. Stretches of
    /// a partition come in order. Nothing is written before the next [`ArchiveWriter::flush`].
    pub async fn append(&mut self, partition: i32, events: &RecordBatch, next_offset: i64) -> Result<(), OfflineError> {
        if events.schema() != self.schema {
            return Err(OfflineError::Columns {
                source_name: self.source.clone(),
                found: format!("{:?}", events.schema().fields()),
                expected: format!("{:?}", self.schema.fields()),
            });
        }
        let pending = self.partitions.entry(partition).or_default();
        let offsets = column(events, OFFSET)?.as_primitive::<Int64Type>();
        let held = pending.durable.max(pending.next);
        let mut at = offsets.values().partition_point(|offset| *offset < held);
        while let Some(first) = offsets.values().get(at) {
            let open = match pending.open.take() {
                Some(open) => open,
                None => {
                    let date = ingest_date(value::<TimestampMicrosecondType>(events, INGESTED_AT, at)?);
                    let name = stream_name(partition, *first);
                    Open::new(self.storage.path(&["archive", &self.source, &date, &name]), &self.schema)
                }
            };
            let end = events.num_rows().min(at + self.rows_per_file - open.rows);
            let open = open.push(events.slice(at, end - at), offsets.value(end - 1) + 1);
            at = end;
            pending.next = pending.next.max(open.next_offset);
            match open.rows < self.rows_per_file {
                true => pending.open = Some(open),
                false => pending.whole.push_back(open.close().await?),
            }
        }
        pending.next = pending.next.max(next_offset);
        Ok(())
    }

    /// Makes everything appended durable; what it could not write it keeps. Returns, per partition, the offset below which every event is:
    /// beyond what was appended, where the archive was ahead.
    pub async fn flush(&mut self) -> Result<BTreeMap<i32, i64>, OfflineError> {
        // All come to an end, also when one fails: a file that is half closed would be lost.
        let place = (&self.storage, self.source.as_str());
        let flushed = join_all(self.partitions.iter_mut().map(|(p, pending)| pending.flush(place, *p))).await;
        flushed.into_iter().collect::<Result<(), _>>()?;
        Ok(self.durable())
    }

    /// Per partition, the offset below which every event is durable.
    pub fn durable(&self) -> BTreeMap<i32, i64> {
        self.partitions.iter().map(|(partition, pending)| (*partition, pending.durable)).collect()
    }

    /// Events that wait for a file.
    pub fn pending_rows(&self) -> usize {
        let rows = |pending: &Pending| {
            pending.whole.iter().map(|file| file.rows).sum::<usize>()
                + pending.open.as_ref().map_or(0, |open| open.rows)
        };
        self.partitions.values().map(rows).sum()
    }
}

impl Pending {
    /// Partitions with what is durable of them.
    async fn known(storage: &Storage, source: &str) -> Result<BTreeMap<i32, Pending>, OfflineError> {
        let last = last_events(storage, source).await?;
        let ends = archive_ends::beyond(storage, source, last.clone()).await?;
        let pending = |partition: i32, durable| Pending {
            durable,
            last: last.get(&partition).copied().unwrap_or(0),
            ..Pending::default()
        };
        Ok(ends.into_iter().map(|(partition, end)| (partition, pending(partition, end))).collect())
    }

    async fn flush(&mut self, (storage, source): (&Storage, &str), partition: i32) -> Result<(), OfflineError> {
        if let Some(open) = self.open.take() {
            self.whole.push_back(open.close().await?);
        }
        while let Some(file) = self.whole.front() {
            storage.create(&file.path, file.bytes.clone()).await?;
            (self.durable, self.last) = (file.next_offset, file.next_offset);
            self.whole.pop_front();
        }
        if self.next > self.durable {
            archive_ends::remember(storage, source, partition, (self.last, self.next)).await?;
            self.durable = self.next;
        }
        Ok(())
    }
}

impl Open {
    fn new(path: Path, schema: &SchemaRef) -> Open {
        let schema = Arc::clone(schema);
        let writer = tokio::task::spawn_blocking(move || {
            let writer =
                properties(&schema, ROW_GROUP_ROWS).and_then(|p| ArrowWriter::try_new(Vec::new(), schema, Some(p)));
            writer.map_err(|e| e.to_string())
        });
        Open { path, rows: 0, next_offset: 0, writer }
    }

    fn push(self, events: RecordBatch, next_offset: i64) -> Open {
        let (path, rows) = (self.path, self.rows + events.num_rows());
        let writer = tokio::spawn(async move {
            let mut writer = self.writer.await.map_err(|e| e.to_string())??;
            let encode = move || writer.write(&events).map(|()| writer).map_err(|e| e.to_string());
            tokio::task::spawn_blocking(encode).await.map_err(|e| e.to_string())?
        });
        Open { path, rows, next_offset, writer }
    }

    async fn close(self) -> Result<Whole, OfflineError> {
        let path = self.path.clone();
        let failed = |cause: String| OfflineError::Encode { path: path.to_string(), cause };
        let writer = self.writer.await.map_err(|e| failed(e.to_string()))?.map_err(&failed)?;
        let close = move || writer.into_inner().map_err(|e| e.to_string());
        let bytes = tokio::task::spawn_blocking(close).await.map_err(|e| failed(e.to_string()))?.map_err(&failed)?;
        Ok(Whole { path: self.path, bytes: bytes.into(), rows: self.rows, next_offset: self.next_offset })
    }
}

/// How files of the archive are written, with row groups of so many rows.
pub(super) fn properties(schema: &SchemaRef, group_rows: usize) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(group_rows));
    // Parquet's statistics leave NaN out: a reader that trusts them takes [1, NaN] for the constant 1, as DataFusion
    // does, and skips NaN where it sorts above all numbers.
    for leaf in ArrowSchemaConverter::new().convert(schema)?.columns() {
        if matches!(leaf.physical_type(), PhysicalType::FLOAT | PhysicalType::DOUBLE) {
            properties = properties.set_column_statistics_enabled(leaf.path().clone(), EnabledStatistics::None);
        }
    }
    Ok(properties.build())
}

fn column<'a>(events: &'a RecordBatch, name: &str) -> Result<&'a Arc<dyn Array>, OfflineError> {
    events.column_by_name(name).ok_or_else(|| failed(&Path::from(name), "no such column")("in the events"))
}

fn value<T: arrow::datatypes::ArrowPrimitiveType>(
    events: &RecordBatch,
    name: &str,
    row: usize,
) -> Result<T::Native, OfflineError> {
    let values = column(events, name)?.as_primitive_opt::<T>();
    let value = values.and_then(|values| values.values().get(row).copied());
    value.ok_or_else(|| failed(&Path::from(name), "no value")(format!("in row {row}")))
}

/// The folder of a day, in UTC.
pub(super) fn ingest_date(micros: i64) -> String {
    let date = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    format!("ingest_date={}", date.format("%Y-%m-%d"))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
