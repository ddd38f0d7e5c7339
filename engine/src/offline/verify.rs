//! Is the archive complete, and does every file hold what its name says?
//!
//! Guarantee: of an archive without a fault, every file was read to its last row, names and rows agree, no offset is there twice among
//! the files that count, and what doesn't count any more is in the file that covers it. An offset that lies between others and is
//! missing was refused, and then its dead letter is known, or it is a hole of Kafka's (a transaction's marker, a message that was
//! compacted away): which of the two can only be told where the events come from the embedded log, which has no holes. What retention removed
//! is no fault: its records say below which offset.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use object_store::path::Path;
use serde::Serialize;

use super::archive::ingest_date;
use super::archive_files::{ArchiveFile, Files, list_archive_leniently};
use super::clustered::offsets_in;
use super::compact::{checked, rows_of};
use super::{OfflineError, Storage, archive_ends, failed, retention};
use crate::source::{INGESTED_AT, instant};

/// Offsets of refused events, by partition.
pub type Refused = BTreeMap<i32, BTreeSet<i64>>;

/// What is known beside the archive.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Offsets of refused events.
    pub refused: Refused,
    /// Where the events come from, if each of its offsets is an event or was refused: its first offset and the one after its last,
    /// by partition.
    pub log: Option<BTreeMap<i32, (i64, i64)>>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub partitions: Vec<VerifiedPartition>,
    /// Files that no longer count, and are whole.
    pub covered: usize,
    /// Retention removed events, all of them before this instant.
    pub removed_before: Option<String>,
    /// Files of those that are still there.
    pub below: usize,
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifiedPartition {
    pub partition: i32,
    /// Events that retention removed: all there were below some offset.
    pub removed: u64,
    pub files: usize,
    pub events: u64,
    /// The first offset and the last of them.
    pub offsets: Option<(i64, i64)>,
    /// Every offset below is in the archive or was refused.
    pub end: i64,
    /// Offsets in between whose dead letters are known.
    pub refused: u64,
    /// Offsets in between of which nothing is known: refused ones whose letters are gone, or Kafka's own.
    pub holes: u64,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub path: String,
    /// The first offset and the last that it is about.
    pub offsets: Option<(i64, i64)>,
    pub cause: String,
}

/// Reads a source's archive to its last row. `beside` is asked once the archive is listed, so that it knows of all that was
/// refused before.
pub async fn verify(
    storage: &Storage,
    source: &str,
    beside: impl AsyncFn() -> Result<Beside, String>,
) -> Result<Verified, OfflineError> {
    let mut missed = None;
    loop {
        match verify_listed(storage, source, &beside).await {
            // Compacted since the archive was listed.
            Err(OfflineError::Gone { path }) if missed.as_ref() != Some(&path) => missed = Some(path),
            verified => return verified,
        }
    }
}

async fn verify_listed(
    storage: &Storage,
    source: &str,
    beside: &impl AsyncFn() -> Result<Beside, String>,
) -> Result<Verified, OfflineError> {
    let (files, foreign) = list_archive_leniently(storage, source).await?;
    let removed = match retention::records(storage, source).await {
        Ok(records) => retention::removed(&records),
        Err(error @ OfflineError::Foreign { .. }) => {
            return Ok(Verified { faults: vec![Fault::of(&error)], ..Verified::default() });
        }
        Err(error) => return Err(error),
    };
    let ends = archive_ends::remembered(storage, source).await?;
    let asked = beside().await;
    let beside = asked.map_err(failed(&Path::from(source), "what was refused can't be told"))?;
    let mut verified = Verified::default();
    verified.faults.extend(foreign.iter().map(Fault::of));
    let files = match Files::of(files, removed) {
        Ok(files) => files,
        // Which files count can't be told.
        Err(error) => {
            verified.faults.push(Fault::of(&error));
            return Ok(verified);
        }
    };
    verified.removed_before = files.removed.latest().map(instant);
    verified.below = files.below.len();
    let log = beside.log.iter().flatten().filter(|(_, (begin, end))| begin < end).map(|(partition, _)| *partition);
    let known = files.counting.iter().map(|file| file.partition).chain(ends.keys().copied()).chain(log);
    let partitions: BTreeSet<i32> = known.chain(files.removed.partitions().map(|(partition, _)| partition)).collect();
    for partition in partitions {
        let check = Check { storage, source, files: &files, beside: &beside, partition };
        check.run(ends.get(&partition).copied(), &mut verified).await?;
    }
    Ok(verified)
}

impl Fault {
    fn of(error: &OfflineError) -> Fault {
        match error {
            OfflineError::Foreign { path, cause } => Fault { path: path.clone(), offsets: None, cause: cause.clone() },
            OfflineError::Storage { path, what, cause } => {
                Fault { path: path.clone(), offsets: None, cause: format!("{what}: {cause}") }
            }
            other => Fault { path: String::new(), offsets: None, cause: other.to_string() },
        }
    }
}

/// A partition that is looked at.
struct Check<'a> {
    storage: &'a Storage,
    source: &'a str,
    files: &'a Files,
    beside: &'a Beside,
    partition: i32,
}

impl Check<'_> {
    async fn run(&self, end: Option<(i64, i64)>, verified: &mut Verified) -> Result<(), OfflineError> {
        let mut found = VerifiedPartition { partition: self.partition, ..VerifiedPartition::default() };
        let log = self.beside.log.as_ref().and_then(|log| log.get(&self.partition)).copied();
        // The offset that comes next; unknown after a file that can't be read, and before the first of Kafka's.
        let mut next = log.map(|(begin, _)| begin);
        let gone = self.files.removed.partitions().find(|(partition, _)| *partition == self.partition);
        if let Some((_, gone)) = gone {
            found.removed = gone.events;
            next = next.max(Some(gone.begin));
        }
        let files: Vec<&ArchiveFile> =
            self.files.counting.iter().filter(|file| file.partition == self.partition).collect();
        for file in &files {
            found.files += 1;
            let offsets = match self.read(file, verified).await? {
                Ok(offsets) => offsets,
                Err(fault) => {
                    let last = file.last.unwrap_or(file.first);
                    verified.faults.push(Fault { offsets: Some((file.first, last)), ..fault });
                    next = None;
                    continue;
                }
            };
            let path = file.meta.location.as_ref();
            for offset in &offsets {
                match next {
                    Some(expected) if *offset < expected => {
                        let cause = "an event that another file holds too".to_owned();
                        verified.faults.push(Fault { path: path.into(), offsets: Some((*offset, *offset)), cause });
                    }
                    Some(expected) => self.missing(path, expected..*offset, &mut found, verified),
                    None => {}
                }
                next = Some(next.map_or(*offset + 1, |next| next.max(*offset + 1)));
            }
            found.events += offsets.len() as u64;
            let (first, last) = (offsets.first().copied(), offsets.last().copied());
            found.offsets = match (found.offsets, first, last) {
                (Some((first, _)), _, Some(last)) | (None, Some(first), Some(last)) => Some((first, last)),
                (known, _, _) => known,
            };
            self.covered(file, &offsets, verified).await?;
        }
        let last = found.offsets.map_or(gone.map_or(0, |(_, gone)| gone.begin), |(_, last)| last + 1);
        found.end = last;
        let path = self.storage.path(&["archive", self.source, "_ends", &format!("{}.json", self.partition)]);
        if let Some((after, end)) = end {
            // A newest file that can't be read is a fault already.
            if after > last && next.is_some_and(|next| next <= after) {
                let cause = "the archive went so far once; its last files are gone".to_owned();
                verified.faults.push(Fault { path: path.to_string(), offsets: Some((last, after - 1)), cause });
            } else if after == last {
                self.missing(path.as_ref(), next.unwrap_or(last)..end, &mut found, verified);
                found.end = end.max(last);
            }
        }
        if let Some((_, log_end)) = log.filter(|(_, log_end)| *log_end < found.end) {
            let cause = format!("the log ends at offset {log_end}, before the archive does");
            verified.faults.push(Fault { path: path.to_string(), offsets: Some((log_end, found.end - 1)), cause });
        }
        verified.partitions.push(found);
        Ok(())
    }

    /// The offsets of a file, or what is wrong with it.
    async fn read(&self, file: &ArchiveFile, verified: &mut Verified) -> Result<Result<Vec<i64>, Fault>, OfflineError> {
        let bytes = self.storage.get(&file.meta.location).await?;
        let rows = match rows_of(file, &bytes) {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(Fault::of(&error))),
        };
        // What is in it is counted also where its name is wrong.
        let offsets = checked(file, &rows).unwrap_or_else(|error| {
            verified.faults.push(Fault::of(&error));
            let mut offsets = offsets_in(&rows).to_vec();
            offsets.sort_unstable();
            offsets.dedup();
            offsets
        });
        let oldest = offsets_in(&rows).iter().enumerate().min_by_key(|(_, offset)| **offset).map(|(row, _)| row);
        let times = rows.column_by_name(INGESTED_AT).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let day = oldest.zip(times).and_then(|(row, times)| times.values().get(row)).map(|at| ingest_date(*at));
        if let Some(day) = day.filter(|day| !file.folder().ends_with(day.as_str())) {
            verified.faults.push(Fault {
                path: file.meta.location.to_string(),
                offsets: offsets.first().zip(offsets.last()).map(|(first, last)| (*first, *last)),
                cause: format!("its first event came in on another day; expected the folder {day}"),
            });
        }
        Ok(Ok(offsets))
    }

    /// Offsets that no file has.
    fn missing(
        &self,
        path: &str,
        offsets: std::ops::Range<i64>,
        found: &mut VerifiedPartition,
        verified: &mut Verified,
    ) {
        if offsets.is_empty() {
            return;
        }
        let refused = self.beside.refused.get(&self.partition);
        let refused: Vec<i64> = refused.map_or(vec![], |known| known.range(offsets.clone()).copied().collect());
        found.refused += refused.len() as u64;
        // What lies between the refused ones.
        let mut from = offsets.start;
        for until in refused.into_iter().chain([offsets.end]) {
            if from < until {
                match self.beside.log {
                    None => found.holes += (until - from) as u64,
                    Some(_) => verified.faults.push(Fault {
                        path: path.to_owned(),
                        offsets: Some((from, until - 1)),
                        cause: "missing before it: neither archived nor refused".to_owned(),
                    }),
                }
            }
            from = until + 1;
        }
    }

    /// Files that lie in the range of one that counts must have nothing that it lacks.
    async fn covered(&self, cover: &ArchiveFile, offsets: &[i64], verified: &mut Verified) -> Result<(), OfflineError> {
        for (file, covers) in &self.files.covered {
            if covers.last() != Some(cover) {
                continue;
            }
            let bytes = match self.storage.get(&file.meta.location).await {
                // Removed since, as it should be.
                Err(OfflineError::Gone { .. }) => continue,
                bytes => bytes?,
            };
            let rows = match rows_of(file, &bytes) {
                Ok(rows) => rows,
                Err(error) => {
                    verified.faults.push(Fault::of(&error));
                    continue;
                }
            };
            let end = cover.last.unwrap_or(cover.first);
            let lacking = offsets_in(&rows).iter().filter(|at| **at <= end && offsets.binary_search(at).is_err());
            match lacking.min() {
                Some(offset) => verified.faults.push(Fault {
                    path: cover.meta.location.to_string(),
                    offsets: Some((*offset, *offset)),
                    cause: format!("it lacks an event of {}, which it is to stand for", file.meta.location),
                }),
                None => verified.covered += 1,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
