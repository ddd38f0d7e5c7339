//! Which files are a source's archive, by one listing.
//!
//! Guarantees: a file is `<partition>-<first offset>.parquet` as the stream wrote it, or
//! `<partition>-<first offset>-<last offset>.parquet` where compaction put several together. What lies within such a range is
//! covered: its rows are in the file of the range, and it does not count, whether it is removed already or not. So the files that
//! count have every row once, at every moment of a compaction, and whoever reads decides so by the names alone. What lies below a
//! partition's beginning does not count either: retention let go of it, see [`super::retention`].
//!
//! Ranges never cross: see [`super::compact`]. Where they do, somebody else made them, and nothing is read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use object_store::ObjectMeta;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::retention::{self, Record, Removed};
use super::{OfflineError, Storage, archive_ends};
use crate::source::OFFSET;

/// Digits of an offset in a name, so that names sort as offsets do.
const DIGITS: usize = 19;

/// A file of the archive, as its name has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArchiveFile {
    pub partition: i32,
    pub first: i64,
    /// Where compaction made it: the last offset in it.
    pub last: Option<i64>,
    pub meta: ObjectMeta,
}

/// What a listing found.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Files that count, by partition and offset.
    pub counting: Vec<ArchiveFile>,
    /// Files that don't, with the one whose range each lies in: the shortest there is first.
    pub covered: Vec<(ArchiveFile, Vec<ArchiveFile>)>,
    /// Files below the beginning of their partition: they don't count.
    pub below: Vec<ArchiveFile>,
    /// What is gone, or about to go.
    pub removed: Removed,
}

/// The name of a file as the stream writes it.
pub(super) fn stream_name(partition: i32, first: i64) -> String {
    format!("{partition}-{first:0DIGITS$}.parquet")
}

/// The name of a file as compaction makes it.
pub(super) fn compacted_name(partition: i32, first: i64, last: i64) -> String {
    format!("{partition}-{first:0DIGITS$}-{last:0DIGITS$}.parquet")
}

impl ArchiveFile {
    /// What a file's name says of it.
    pub(super) fn of(meta: ObjectMeta) -> Result<ArchiveFile, OfflineError> {
        let name = meta.location.filename().and_then(|name| name.strip_suffix(".parquet"));
        let (partition, first, last) = name.and_then(parse).ok_or_else(|| OfflineError::Foreign {
            path: meta.location.to_string(),
            cause: format!("expected a name such as {} or {}", stream_name(0, 42), compacted_name(0, 42, 99)),
        })?;
        Ok(ArchiveFile { partition, first, last, meta })
    }

    /// The last offset that the name speaks of.
    fn end(&self) -> i64 {
        self.last.unwrap_or(self.first)
    }

    /// The folder, which is of the day of the first event.
    pub(super) fn folder(&self) -> &str {
        self.meta.location.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

fn parse(stem: &str) -> Option<(i32, i64, Option<i64>)> {
    let number = |text: &str| (text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse());
    let (before, end) = stem.rsplit_once('-')?;
    let end = number(end)?.ok()?;
    let (partition, first, last) = match before.rsplit_once('-').and_then(|(p, first)| Some((p, number(first)?))) {
        Some((partition, first)) => (partition, first.ok()?, Some(end)),
        None => (before, end, None),
    };
    let ordered = last.is_none_or(|last| first <= last);
    let known: i32 = partition.parse().ok()?;
    (ordered && known.to_string() == partition).then_some((known, first, last))
}

/// Looks up what a source's archive is now.
pub(super) async fn list_archive(storage: &Storage, source: &str) -> Result<Files, OfflineError> {
    Ok(list_with_records(storage, source).await?.0)
}

/// The same, with the records of what is gone.
pub(super) async fn list_with_records(storage: &Storage, source: &str) -> Result<(Files, Vec<Record>), OfflineError> {
    let listed = storage.list(&storage.path(&["archive", source]), "parquet").await?;
    // After the files: one that is missing was removed after its record was there.
    let records = retention::records(storage, source).await?;
    let files = listed.into_iter().map(ArchiveFile::of).collect::<Result<_, _>>()?;
    Ok((Files::of(files, retention::removed(&records))?, records))
}

/// The same for who wants to hear of every file that isn't one of the archive's.
pub(super) async fn list_archive_leniently(
    storage: &Storage,
    source: &str,
) -> Result<(Vec<ArchiveFile>, Vec<OfflineError>), OfflineError> {
    let listed = storage.list(&storage.path(&["archive", source]), "parquet").await?;
    let (mut files, mut foreign) = (vec![], vec![]);
    for file in listed {
        match ArchiveFile::of(file) {
            Ok(file) => files.push(file),
            Err(error) => foreign.push(error),
        }
    }
    Ok((files, foreign))
}

impl Files {
    pub(super) fn of(mut files: Vec<ArchiveFile>, removed: Removed) -> Result<Files, OfflineError> {
        // What covers comes before what it covers.
        files.sort_by_key(|file| (file.partition, file.first, Reverse(file.end()), file.last.is_none()));
        let mut found = Files { removed, ..Files::default() };
        let mut covers: Vec<ArchiveFile> = vec![];
        for file in files {
            let begin = found.removed.begin(file.partition);
            if file.first < begin {
                if file.end() >= begin {
                    return Err(OfflineError::Foreign {
                        path: file.meta.location.to_string(),
                        cause: format!("retention removed what lies below offset {begin}, and it goes beyond"),
                    });
                }
                found.below.push(file);
                continue;
            }
            covers.retain(|cover| cover.partition == file.partition && cover.end() >= file.first);
            if let Some(crossed) = covers.iter().find(|cover| cover.end() < file.end()) {
                return Err(OfflineError::Foreign {
                    path: file.meta.location.to_string(),
                    cause: format!("its offsets overlap those of {}", crossed.meta.location),
                });
            }
            match covers.is_empty() {
                true => found.counting.push(file.clone()),
                false => found.covered.push((file.clone(), covers.iter().rev().cloned().collect())),
            }
            if file.last.is_some() {
                covers.push(file);
            }
        }
        Ok(found)
    }

    /// The files that count, by partition.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &[ArchiveFile]> {
        self.counting.chunk_by(|a, b| a.partition == b.partition)
    }
}

/// Per partition, the offsets of the first and the last event in some files that count.
pub(super) async fn ranges(
    storage: &Storage,
    files: &Files,
) -> Result<BTreeMap<i32, RangeInclusive<i64>>, OfflineError> {
    let mut ranges = BTreeMap::new();
    for files in files.partitions() {
        if let (Some(oldest), Some(newest)) = (files.first(), files.last()) {
            ranges.insert(oldest.partition, oldest.first..=last_offset(storage, &newest.meta).await?);
        }
    }
    Ok(ranges)
}

/// Per partition, the offset after the last event in a source's archive.
pub(super) async fn last_events(storage: &Storage, source: &str) -> Result<BTreeMap<i32, i64>, OfflineError> {
    ends(storage, &list_archive(storage, source).await?).await
}

/// Per partition, the offset after the last event in some files that count, or after what is gone.
pub(super) async fn ends(storage: &Storage, files: &Files) -> Result<BTreeMap<i32, i64>, OfflineError> {
    let ranges = ranges(storage, files).await?;
    let mut ends: BTreeMap<i32, i64> = files.removed.partitions().map(|(p, held)| (p, held.begin)).collect();
    ends.extend(ranges.into_iter().map(|(partition, range)| (partition, range.end() + 1)));
    Ok(ends)
}

/// Per partition, the offset below which every event is in a source's archive, or was refused.
pub async fn archived_ends(storage: &Storage, source: &str) -> Result<BTreeMap<i32, i64>, OfflineError> {
    archive_ends::beyond(storage, source, last_events(storage, source).await?).await
}

/// The last offset in a file, from its statistics.
pub(super) async fn last_offset(storage: &Storage, file: &ObjectMeta) -> Result<i64, OfflineError> {
    let last = offsets_of(&storage.footer(file).await?).into_iter().map(|group| group.map(|(_, last)| last));
    last.max().flatten().ok_or_else(|| OfflineError::Foreign {
        path: file.location.to_string(),
        cause: format!("no statistics of a column {OFFSET}"),
    })
}

/// The least and the greatest offset of each row group, where it has statistics of them.
pub(super) fn offsets_of(metadata: &ParquetMetaData) -> Vec<Option<(i64, i64)>> {
    let of_group = metadata.row_groups().iter().map(|group| {
        let offset = group.columns().iter().find(|column| column.column_path().string() == OFFSET)?;
        match offset.statistics()? {
            Statistics::Int64(statistics) => Some((*statistics.min_opt()?, *statistics.max_opt()?)),
            _ => None,
        }
    });
    of_group.collect()
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    fn meta(location: &str) -> ObjectMeta {
        let last_modified = chrono::DateTime::UNIX_EPOCH;
        ObjectMeta { location: Path::from(location), last_modified, size: 1, e_tag: None, version: None }
    }

    #[test]
    fn names_are_read_strictly() {
        let of = |stem: &str| parse(stem);
        assert_eq!(of("0-0000000000000000042"), Some((0, 42, None)));
        assert_eq!(of("-1-0000000000000000042"), Some((-1, 42, None)));
        assert_eq!(of("17-0000000000000000042-0000000000000000099"), Some((17, 42, Some(99))));
        assert_eq!(of("-1-0000000000000000042-0000000000000000042"), Some((-1, 42, Some(42))));
        assert_eq!(of("0-9223372036854775807"), Some((0, i64::MAX, None)));
        for wrong in [
            "0-42",
            "0-0000000000000000042-43",
            "0-42-0000000000000000043",
            "0-0000000000000000099-0000000000000000042",
            "0000000000000000042",
            "0-0000000000000000042-0000000000000000043-0000000000000000044",
            "00-0000000000000000042",
            "+1-0000000000000000042",
            "0-000000000000000004x",
            "0-9223372036854775808",
            "x-0000000000000000042",
            "-0000000000000000042",
            "",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_range_covers_does_not_count() {
        let of = |names: &[(i32, i64, Option<i64>)]| {
            let name = |&(p, first, last): &(i32, i64, Option<i64>)| match last {
                Some(last) => compacted_name(p, first, last),
                None => stream_name(p, first),
            };
            let files = names.iter().map(|file| ArchiveFile::of(meta(&format!("a/{}", name(file)))).unwrap());
            Files::of(files.collect(), Removed::default())
        };
        let short = |file: &ArchiveFile| (file.partition, file.first, file.last);
        let found = of(&[
            (0, 300, None),
            (0, 0, None),
            (0, 100, None),
            (0, 100, Some(299)),
            (0, 0, Some(299)),
            (0, 0, Some(99)),
            (0, 250, None),
            (1, 100, None),
            (1, 7, Some(7)),
            (1, 7, None),
        ]);
        let found = found.unwrap();
        let counting: Vec<_> = found.counting.iter().map(short).collect();
        assert_eq!(counting, [(0, 0, Some(299)), (0, 300, None), (1, 7, Some(7)), (1, 100, None)]);
        let covered: Vec<_> = found.covered.iter().map(|(f, by)| (short(f), by.iter().map(short).collect())).collect();
        let whole = (0, 0, Some(299));
        let expected: [(_, Vec<_>); 6] = [
            ((0, 0, Some(99)), vec![whole]),
            ((0, 0, None), vec![(0, 0, Some(99)), whole]),
            ((0, 100, Some(299)), vec![whole]),
            ((0, 100, None), vec![(0, 100, Some(299)), whole]),
            ((0, 250, None), vec![(0, 100, Some(299)), whole]),
            ((1, 7, None), vec![(1, 7, Some(7))]),
        ];
        assert_eq!(covered, expected);
        let error = of(&[(0, 0, Some(200)), (0, 100, Some(300))]).unwrap_err().to_string();
        assert!(error.contains("overlap those of a/0-0000000000000000000-0000000000000000200.parquet"), "{error}");
    }
}
