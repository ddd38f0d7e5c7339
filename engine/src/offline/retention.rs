//! Retention by age: what an archive no longer has, and what of it may go.
//!
//! ```text
//! archive/<source>/_retention/<hash>.json   {"before": {"event_time": …}, "partitions": {"0": {"begin": …, "events": …}}}
//! ```
//!
//! A partition begins at an offset: files below don't count, whether they are removed already or not, and every event in them
//! is older than the horizon, `before` (microseconds, by the column of the event time). So what an archive is follows from one listing of files
//! and one of records, in this order: a record is durable before the first file goes, so whoever misses a file in the listing finds
//! the record that explains it.
//!
//! Guarantees: the horizon only rises, and so do the beginnings: records are added, never changed, and the greatest of all counts.
//! One is removed only if a later one says all that it does. A partition's newest file stays, and those of one day go together or not at all:
//! compaction puts files of a day together, from the day's first one on, so a range that is compacted meanwhile lies below a beginning or behind it.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, TimeUnit};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive_files::{ArchiveFile, Files};
use super::compact::{AT_ONCE, CompactStep, Compaction};
use super::{OfflineError, Storage, failed};

/// How much of its history an archive keeps.
#[derive(Debug, Clone)]
pub struct Retention {
    /// The column with the event time.
    pub timestamp: String,
    /// Events before this instant may go: microseconds UTC.
    pub before: i64,
}

/// What an archive no longer has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// By the column of the event time (a source may have got another one since): every event that is gone was older.
    before: BTreeMap<String, i64>,
    partitions: BTreeMap<i32, Beginning>,
}

/// Where a partition begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// Every event below is gone.
    pub begin: i64,
    /// So many there were.
    pub events: u64,
}

impl Removed {
    /// The instant from which on every event is held, by the time in a column; none if nothing is gone. Where files went by the time in
    /// another column, no instant is known.
    pub fn horizon(&self, timestamp: &str) -> Option<i64> {
        if self.partitions.is_empty() {
            return None;
        }
        let others = self.before.keys().any(|column| column != timestamp);
        Some(self.before.get(timestamp).copied().filter(|_| !others).unwrap_or(i64::MAX))
    }

    /// The offset below which a partition has no events any more.
    pub fn begin(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(i64::MIN, |held| held.begin)
    }

    /// What is gone of each partition of which anything is.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (i32, Beginning)> {
        self.partitions.iter().map(|(partition, held)| (*partition, *held))
    }

    /// The latest of all horizons.
    pub(super) fn latest(&self) -> Option<i64> {
        self.before.values().copied().max()
    }

    fn add(&mut self, other: &Removed) {
        for (column, before) in &other.before {
            let known = self.before.entry(column.clone()).or_insert(*before);
            *known = (*known).max(*before);
        }
        for (partition, more) in &other.partitions {
            if self.begin(*partition) < more.begin {
                self.partitions.insert(*partition, *more);
            }
        }
    }

    /// Whether it says all that another does.
    fn covers(&self, other: &Removed) -> bool {
        let mut both = self.clone();
        both.add(other);
        both == *self
    }
}

/// A record, where it is and since when.
#[derive(Debug, Clone)]
pub(super) struct Record {
    meta: ObjectMeta,
    removed: Removed,
}

/// All records of a source's archive. After its files are listed, not before.
pub(super) async fn records(storage: &Storage, source: &str) -> Result<Vec<Record>, OfflineError> {
    let mut missed = None;
    loop {
        match read(storage, source).await {
            // Another one says the same since.
            Err(OfflineError::Gone { path }) if missed.as_ref() != Some(&path) => missed = Some(path),
            records => return records,
        }
    }
}

async fn read(storage: &Storage, source: &str) -> Result<Vec<Record>, OfflineError> {
    let mut records = vec![];
    for meta in storage.list(&storage.path(&["archive", source, "_retention"]), "json").await? {
        let foreign = |e: serde_json::Error| OfflineError::Foreign {
            path: meta.location.to_string(),
            cause: format!("{e}; it says what retention removed of the archive"),
        };
        let removed = serde_json::from_slice(&storage.get(&meta.location).await?).map_err(foreign)?;
        records.push(Record { meta, removed });
    }
    Ok(records)
}

/// What records say together.
pub(super) fn removed(records: &[Record]) -> Removed {
    records.iter().fold(Removed::default(), |mut all, record| {
        all.add(&record.removed);
        all
    })
}

/// Removes what no longer counts, once those who listed it before have had time to read it; then lets go of what is too old. The files of
/// that don't count from then on, and a later run removes them.
pub(super) async fn retire(
    storage: &Storage,
    source: &str,
    (files, records): (&Files, &[Record]),
    how: &Compaction,
    step: &mut (dyn FnMut(&CompactStep) + Send),
) -> Result<usize, OfflineError> {
    let old: Vec<&Record> = records.iter().filter(|record| how.over(&record.meta)).collect();
    let mut waiting = 0;
    for file in &files.below {
        if old.iter().any(|record| file.first < record.removed.begin(file.partition)) {
            storage.remove(&file.meta.location).await?;
            step(&CompactStep::Removed { path: file.meta.location.to_string(), bytes: file.meta.size });
        } else {
            waiting += 1;
        }
    }
    for record in &old {
        if old.iter().any(|other| other.removed != record.removed && other.removed.covers(&record.removed)) {
            storage.remove(&record.meta.location).await?;
        }
    }
    let Some(retention) = &how.retention else { return Ok(waiting) };
    let (mut next, mut count, mut events) = (files.removed.clone(), 0, 0);
    for held in files.partitions() {
        let old = aged(storage, held, retention, step).await?;
        let Some(first) = held.get(old.files).filter(|_| old.files > 0) else { continue };
        let known = next.partitions.entry(first.partition).or_default();
        *known = Beginning { begin: first.first, events: known.events + old.events };
        let before = next.before.entry(retention.timestamp.clone()).or_insert(i64::MIN);
        *before = (*before).max(old.newest.saturating_add(1));
        (count, events) = (count + old.files, events + old.events);
    }
    if count > 0 {
        remember(storage, source, &next).await?;
        let before = next.before.get(&retention.timestamp).copied().unwrap_or(retention.before);
        step(&CompactStep::Retired { before, files: count, events });
    }
    Ok(waiting + count)
}

/// The files of a partition, from its first one on, that are too old.
#[derive(Debug, Default)]
struct Aged {
    files: usize,
    events: u64,
    newest: i64,
}

async fn aged(
    storage: &Storage,
    files: &[ArchiveFile],
    retention: &Retention,
    step: &mut (dyn FnMut(&CompactStep) + Send),
) -> Result<Aged, OfflineError> {
    let mut found = Aged { newest: i64::MIN, ..Aged::default() };
    let mut days = files.chunk_by(|a, b| a.folder() == b.folder()).peekable();
    while let Some(day) = days.next() {
        // The last day may go on, and a compaction may know longer stretches of it.
        if days.peek().is_none() {
            break;
        }
        let footers = day.iter().map(|file| storage.footer(&file.meta));
        let footers: Vec<_> = match stream::iter(footers).buffered(AT_ONCE).try_collect().await {
            // Compacted meanwhile.
            Err(OfflineError::Gone { .. }) => break,
            footers => footers?,
        };
        let (mut events, mut newest) = (0, i64::MIN);
        for (file, footer) in day.iter().zip(&footers) {
            match newest_event(footer, &retention.timestamp) {
                Some(time) => newest = newest.max(time),
                None => {
                    let cause =
                        format!("how old its events are can't be told: no statistics of `{}`", retention.timestamp);
                    step(&CompactStep::Kept { path: file.meta.location.to_string(), cause });
                    return Ok(found);
                }
            }
            events += u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
        }
        if newest >= retention.before {
            break;
        }
        found =
            Aged { files: found.files + day.len(), events: found.events + events, newest: found.newest.max(newest) };
    }
    Ok(found)
}

/// The newest event time in a file, in microseconds, by its statistics.
fn newest_event(footer: &ParquetMetaData, timestamp: &str) -> Option<i64> {
    let (descr, pairs) = (footer.file_metadata().schema_descr(), footer.file_metadata().key_value_metadata());
    let schema = parquet_to_arrow_schema(descr, pairs).ok()?;
    let micros = match schema.field_with_name(timestamp).ok()?.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        _ => return None,
    };
    let of_group = footer.row_groups().iter().map(|group| {
        let column = group.columns().iter().find(|column| column.column_path().string() == timestamp)?;
        match column.statistics()? {
            Statistics::Int64(statistics) => statistics.max_opt()?.checked_mul(micros),
            _ => None,
        }
    });
    of_group.collect::<Option<Vec<i64>>>()?.into_iter().max()
}

async fn remember(storage: &Storage, source: &str, removed: &Removed) -> Result<(), OfflineError> {
    let folder = ["archive", source, "_retention"];
    let text = serde_json::to_vec(removed).map_err(failed(&storage.path(&folder), "can't encode"))?;
    let hash: String = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = storage.path(&[&folder[..], &[&format!("{hash}.json")]].concat());
    match storage.create(&path, Bytes::from(text)).await {
        // Another compaction found the same.
        Err(OfflineError::Conflict { .. }) => Ok(()),
        created => created,
    }
}

impl Compaction {
    /// Whether whoever listed the archive before a file was there has had its time.
    pub(super) fn over(&self, file: &ObjectMeta) -> bool {
        (self.now - file.last_modified).to_std().is_ok_and(|age| age >= self.grace)
    }
}
