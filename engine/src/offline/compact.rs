//! Many small files of the archive put together: fewer to open, their rows in the order of their times.
//!
//! Guarantees: a reader sees every row once, whenever it looks and wherever a compaction is or died. A compacted file is created
//! whole under a name that says which offsets it covers; from then on the files that lie in there don't count
//! ([`super::archive_files`]). They are removed by a later run, once the grace period is over: whoever listed them before is
//! expected to have read them by then, and misses them by name if not.
//!
//! Any number of compactions may run, beside the stream and each other. What belongs together follows from the files alone:
//! the files of a partition in the order of offsets, except for the newest, which the stream may be about to follow; as long
//! as they are of one day and have the same columns; from the first one on, while there is room. A later run finds longer
//! stretches from the same beginnings. So ranges lie within each other or apart, and never cross.

use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Int32Type, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::parquet_to_arrow_schema;

use super::archive::properties;
use super::archive_files::{ArchiveFile, Files, compacted_name, list_archive, list_with_records};
use super::clustered::offsets_in;
use super::retention::{Retention, retire};
use super::{OfflineError, Storage, failed};
use crate::source::{OFFSET, PARTITION};

/// Rows whose statistics a scan for a stretch of time goes by: fewer than in a file as the stream writes it, whose rows lie as
/// they came.
const ROW_GROUP_ROWS: usize = 32 * 1024;

/// Files that are asked for at once.
pub(super) const AT_ONCE: usize = 8;

/// How to compact.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// The columns by which rows are ordered: their time, then a key. What a file doesn't have is passed over.
    pub order: Vec<String>,
    /// Only what came in before this day.
    pub before: Option<NaiveDate>,
    /// How long what is covered stays for those who listed it.
    pub grace: Duration,
    /// Rows of a compacted file at the most. An archive has one such number for all its life: stretches begin by it.
    pub rows_per_file: usize,
    /// What the archive keeps; all, where it isn't stated.
    pub retention: Option<Retention>,
    pub now: DateTime<Utc>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompactStep {
    /// Files were put together.
    Merged { path: String, files: usize, rows: usize, bytes: usize },
    /// A file that no longer counted was removed.
    Removed { path: String, bytes: u64 },
    /// Events were too old: their files no longer count, and whatever needs events before this instant is refused from now on.
    Retired { before: i64, files: usize, events: u64 },
    /// A file that may be too old, which can't be told, and all after it.
    Kept { path: String, cause: String },
    /// So many files no longer count, and stay until their grace is over.
    Waiting { files: usize },
}

/// Compacts a source's archive; `step` hears of each step when it is done.
pub async fn compact(
    storage: &Storage,
    source: &str,
    how: &Compaction,
    step: &mut (dyn FnMut(&CompactStep) + Send),
) -> Result<(), OfflineError> {
    let (files, records) = list_with_records(storage, source).await?;
    let mut waiting = retire(storage, source, (&files, &records), how, step).await?;
    let files = list_archive(storage, source).await?;
    for (file, covers) in &files.covered {
        // Whoever listed the archive after any of its covers was there doesn't read it.
        if covers.iter().any(|cover| how.over(&cover.meta)) {
            storage.remove(&file.meta.location).await?;
            step(&CompactStep::Removed { path: file.meta.location.to_string(), bytes: file.meta.size });
        } else {
            waiting += 1;
        }
    }
    for stretch in stretches(storage, &files, how).await? {
        match merge(storage, source, &stretch, how).await {
            Ok(made) => {
                waiting += stretch.len();
                step(&made);
            }
            // Another compaction was faster.
            Err(OfflineError::Gone { .. } | OfflineError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    step(&CompactStep::Waiting { files: waiting });
    Ok(())
}

/// Files that are worth to be put together, in the order of offsets.
async fn stretches(storage: &Storage, files: &Files, how: &Compaction) -> Result<Vec<Vec<ArchiveFile>>, OfflineError> {
    let mut found = vec![];
    for files in files.partitions() {
        let Some((_newest, settled)) = files.split_last() else { continue };
        for of_day in settled.chunk_by(|a, b| a.folder() == b.folder()) {
            let day = of_day.first().and_then(|file| file.folder().rsplit_once("ingest_date=")?.1.parse().ok());
            if how.before.is_some_and(|before| day.is_none_or(|day: NaiveDate| day >= before)) {
                continue;
            }
            let known = of_day.iter().map(|file| known(storage, file));
            let known: Vec<_> = match stream::iter(known).buffered(AT_ONCE).try_collect().await {
                // Compacted meanwhile.
                Err(OfflineError::Gone { .. }) => continue,
                known => known?,
            };
            found.extend(cut(of_day, &known, how.rows_per_file));
        }
    }
    Ok(found)
}

/// Rows and columns of a file.
async fn known(storage: &Storage, file: &ArchiveFile) -> Result<(usize, SchemaRef), OfflineError> {
    let footer = storage.footer(&file.meta).await?;
    let (descr, pairs) = (footer.file_metadata().schema_descr(), footer.file_metadata().key_value_metadata());
    let schema =
        parquet_to_arrow_schema(descr, pairs).map_err(failed(&file.meta.location, "can't read its columns"))?;
    Ok((usize::try_from(footer.file_metadata().num_rows()).unwrap_or(0), schema.into()))
}

/// From the first file on, as many as there is room for; then from the next one on.
fn cut(files: &[ArchiveFile], known: &[(usize, SchemaRef)], rows_per_file: usize) -> Vec<Vec<ArchiveFile>> {
    let mut stretches: Vec<(Vec<ArchiveFile>, usize, &SchemaRef)> = vec![];
    for (file, (rows, schema)) in files.iter().zip(known) {
        match stretches.last_mut() {
            Some((stretch, sum, columns)) if *columns == schema && *sum + rows <= rows_per_file => {
                stretch.push(file.clone());
                *sum += rows;
            }
            _ => stretches.push((vec![file.clone()], *rows, schema)),
        }
    }
    // Alone, a file gains by its order, if it is long and not ordered yet.
    let alone = |files: &[ArchiveFile], rows| files.iter().all(|file| file.last.is_none()) && rows > ROW_GROUP_ROWS;
    let worth = |(files, rows, _): &(Vec<ArchiveFile>, usize, &SchemaRef)| files.len() > 1 || alone(files, *rows);
    stretches.into_iter().filter(worth).map(|(files, _, _)| files).collect()
}

async fn merge(
    storage: &Storage,
    source: &str,
    files: &[ArchiveFile],
    how: &Compaction,
) -> Result<CompactStep, OfflineError> {
    let read = files.iter().map(async |file| Ok((file.clone(), storage.get(&file.meta.location).await?)));
    let read: Vec<_> = stream::iter(read).buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
    let order = how.order.clone();
    let merged = tokio::task::spawn_blocking(move || merged(&read, &order)).await;
    let merged = merged.map_err(failed(&storage.path(&["archive", source]), "can't compact"))??;
    let Merged { partition, first, last, rows, bytes } = merged;
    let folder = files.first().and_then(|file| file.folder().rsplit_once('/')).map_or("", |(_, day)| day);
    let path = storage.path(&["archive", source, folder, &compacted_name(partition, first, last)]);
    let size = bytes.len();
    storage.create(&path, bytes).await?;
    Ok(CompactStep::Merged { path: path.to_string(), files: files.len(), rows, bytes: size })
}

struct Merged {
    partition: i32,
    first: i64,
    last: i64,
    rows: usize,
    bytes: Bytes,
}

/// One file of several. What is wrong with one of them stays where it can be seen.
fn merged(files: &[(ArchiveFile, Bytes)], order: &[String]) -> Result<Merged, OfflineError> {
    let Some((oldest, _)) = files.first() else {
        return Err(OfflineError::Foreign { path: String::new(), cause: "nothing to compact".into() });
    };
    let place = &oldest.meta.location;
    let unmade = |e: String| failed(place, "can't compact")(e);
    let (mut parts, mut before) = (vec![], i64::MIN);
    for (file, bytes) in files {
        let rows = rows_of(file, bytes)?;
        let offsets = checked(file, &rows)?;
        if offsets.first().is_some_and(|first| *first <= before) {
            let cause = "its offsets overlap those of the file before; see `tidemark archive verify`".into();
            return Err(OfflineError::Foreign { path: file.meta.location.to_string(), cause });
        }
        before = offsets.last().copied().unwrap_or(before);
        parts.push(rows);
    }
    let schema = parts.first().map(RecordBatch::schema).ok_or_else(|| unmade("no rows".to_owned()))?;
    let rows = concat_batches(&schema, &parts).map_err(|e| unmade(e.to_string()))?;
    drop(parts);
    let columns = order.iter().map(String::as_str).chain([OFFSET]).filter_map(|name| rows.column_by_name(name));
    let columns = columns.filter(|column| !column.data_type().is_nested());
    let columns: Vec<_> = columns.map(|values| SortColumn { values: values.clone(), options: None }).collect();
    let clustered = lexsort_to_indices(&columns, None).and_then(|order| take_record_batch(&rows, &order));
    let clustered = clustered.map_err(|e| unmade(e.to_string()))?;
    let encode = || {
        let mut writer = ArrowWriter::try_new(vec![], schema.clone(), Some(properties(&schema, ROW_GROUP_ROWS)?))?;
        writer.write(&clustered)?;
        writer.into_inner()
    };
    let bytes = encode().map_err(|e| OfflineError::Encode { path: place.to_string(), cause: e.to_string() })?;
    let (partition, first, rows) = (oldest.partition, oldest.first, clustered.num_rows());
    Ok(Merged { partition, first, last: before, rows, bytes: bytes.into() })
}

/// All rows of a file, as they lie.
pub(super) fn rows_of(file: &ArchiveFile, bytes: &Bytes) -> Result<RecordBatch, OfflineError> {
    let unread = |e: String| failed(&file.meta.location, "can't read")(e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| unread(e.to_string()))?;
    let schema = builder.schema().clone();
    let rows = builder.build().map_err(|e| unread(e.to_string()))?;
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|e| unread(e.to_string()))?;
    concat_batches(&schema, &rows).map_err(|e| unread(e.to_string()))
}

/// The offsets of a file's rows, ascending: each once, and what its name says.
pub(super) fn checked(file: &ArchiveFile, rows: &RecordBatch) -> Result<Vec<i64>, OfflineError> {
    let foreign = |cause: String| OfflineError::Foreign { path: file.meta.location.to_string(), cause };
    let partitions = rows.column_by_name(PARTITION).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let partitions = partitions.ok_or_else(|| foreign(format!("no column {PARTITION}")))?;
    if let Some(other) = partitions.values().iter().find(|partition| **partition != file.partition) {
        return Err(foreign(format!("it holds an event of partition {other}")));
    }
    let mut offsets = offsets_in(rows).to_vec();
    match file.last {
        Some(_) => offsets.sort_unstable(),
        None => {
            let back = offsets.windows(2).find_map(|two| match two {
                [a, b] if a > b => Some((*a, *b)),
                _ => None,
            });
            if let Some((before, after)) = back {
                return Err(foreign(format!("offset {after} comes after offset {before}")));
            }
        }
    }
    if let Some([twice, _]) = offsets.windows(2).find(|two| matches!(two, [a, b] if a == b)) {
        return Err(foreign(format!("it holds offset {twice} twice")));
    }
    match (offsets.first(), offsets.last()) {
        (Some(first), _) if *first != file.first => {
            Err(foreign(format!("its first offset is {first}, and its name says {}", file.first)))
        }
        (Some(_), Some(last)) if file.last.is_some_and(|said| said != *last) => {
            Err(foreign(format!("its last offset is {last}, and its name says {}", file.last.unwrap_or_default())))
        }
        (Some(_), _) => Ok(offsets),
        (None, _) => Err(foreign("it holds no event".to_owned())),
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
