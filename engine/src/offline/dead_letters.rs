//! Dead letters: events that could not be taken, `dead-letters/<source>/<partition>-<first offset>.ndjson`.
//!
//! Guarantees: as the archive's. After [`DeadLetters::flush`] every reject is durable, once; a replay
//! skips what is there already.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{OfflineError, Storage, file_stem, parse_stem};
use crate::source::{DeadLetters, Reject, SourceError};

/// One event that was refused. A line of a file, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub partition: i32,
    pub offset: i64,
    /// When the source took it in, RFC 3339.
    pub time: String,
    pub reason: String,
    /// Its bytes as they came, base64.
    pub payload: String,
}

impl DeadLetter {
    fn new(partition: i32, reject: &Reject) -> DeadLetter {
        let time = DateTime::from_timestamp_micros(reject.ingested_at).unwrap_or_default();
        DeadLetter {
            partition,
            offset: reject.offset,
            time: time.to_rfc3339_opts(SecondsFormat::Micros, true),
            reason: reject.reason.clone(),
            payload: BASE64.encode(&reject.payload),
        }
    }

    /// The event's bytes, as they came.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.payload).ok()
    }
}

/// Writes the rejects of one source.
#[derive(Debug)]
pub struct DeadLetterWriter {
    storage: Storage,
    source: String,
    partitions: BTreeMap<i32, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Rejects below are durable or on the way.
    next: i64,
    letters: Vec<DeadLetter>,
}

impl DeadLetterWriter {
    /// Looks up what is there already.
    pub async fn open(storage: Storage, source: &str) -> Result<DeadLetterWriter, OfflineError> {
        let mut newest: BTreeMap<i32, ObjectMeta> = BTreeMap::new();
        for (partition, _, file) in letter_files(&storage, source).await? {
            newest.insert(partition, file);
        }
        let mut partitions = BTreeMap::new();
        for (partition, file) in newest {
            let next = read_file(&storage, &file).await?.last().map_or(0, |letter| letter.offset + 1);
            partitions.insert(partition, Pending { next, letters: Vec::new() });
        }
        Ok(DeadLetterWriter { storage, source: source.into(), partitions })
    }

    async fn write(&mut self) -> Result<(), OfflineError> {
        for (partition, pending) in &mut self.partitions {
            let Some(first) = pending.letters.first() else {
                continue;
            };
            let name = format!("{}.ndjson", file_stem(*partition, first.offset));
            let path = self.storage.path(&["dead-letters", &self.source, &name]);
            let mut lines = Vec::new();
            for letter in &pending.letters {
                serde_json::to_writer(&mut lines, letter).map_err(super::failed(&path, "can't encode"))?;
                lines.push(b'\n');
            }
            self.storage.put(&path, Bytes::from(lines)).await?;
            pending.letters.clear();
        }
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for DeadLetterWriter {
    fn append(&mut self, partition: i32, rejects: &[Reject]) {
        if rejects.is_empty() {
            return;
        }
        let pending = self.partitions.entry(partition).or_default();
        for reject in rejects {
            if reject.offset >= pending.next {
                pending.letters.push(DeadLetter::new(partition, reject));
                pending.next = reject.offset + 1;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), SourceError> {
        let source_name = self.source.clone();
        self.write().await.map_err(|e| SourceError::DeadLetters { source_name, cause: e.to_string() })
    }

    fn release(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }
}

/// All dead letters of a source, by partition and offset.
pub async fn dead_letters(storage: &Storage, source: &str) -> Result<Vec<DeadLetter>, OfflineError> {
    let mut letters = Vec::new();
    for (_, _, file) in letter_files(storage, source).await? {
        letters.extend(read_file(storage, &file).await?);
    }
    Ok(letters)
}

async fn letter_files(storage: &Storage, source: &str) -> Result<Vec<(i32, i64, ObjectMeta)>, OfflineError> {
    let mut files = Vec::new();
    for file in storage.list(&storage.path(&["dead-letters", source]), "ndjson").await? {
        let stem = file.location.filename().and_then(|name| name.strip_suffix(".ndjson")).and_then(parse_stem);
        let (partition, first) = stem.ok_or_else(|| OfflineError::Foreign {
            path: file.location.to_string(),
            cause: "expected a name such as 0-0000000000000000042.ndjson".into(),
        })?;
        files.push((partition, first, file));
    }
    files.sort_by_key(|(partition, first, _)| (*partition, *first));
    Ok(files)
}

async fn read_file(storage: &Storage, file: &ObjectMeta) -> Result<Vec<DeadLetter>, OfflineError> {
    let bytes = storage.get(&file.location).await?;
    let letters = serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>();
    letters.map_err(|e| OfflineError::Foreign { path: file.location.to_string(), cause: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(offset: i64) -> Reject {
        let payload = Bytes::from(vec![0, 159, 146, offset as u8]);
        Reject { offset, ingested_at: -1, payload, reason: format!("\"bad\"\nat {offset}") }
    }

    async fn offsets(storage: &Storage) -> Vec<(i32, i64)> {
        dead_letters(storage, "t").await.unwrap().iter().map(|l| (l.partition, l.offset)).collect()
    }

    #[tokio::test]
    async fn letters_are_kept_once_whatever_is_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
        assert_eq!(offsets(&storage).await, []);
        let mut writer = DeadLetterWriter::open(storage.clone(), "t").await.unwrap();
        writer.append(0, &[reject(3), reject(9)]);
        writer.append(1, &[]);
        writer.flush().await.unwrap();
        writer.append(0, &[reject(12)]);
        writer.append(-1, &[reject(5)]);
        writer.flush().await.unwrap();
        writer.flush().await.unwrap();
        writer.append(0, &[reject(20)]); // not flushed: a crash loses it
        let mut writer = DeadLetterWriter::open(storage.clone(), "t").await.unwrap();
        writer.append(0, &[reject(3)]);
        writer.append(0, &[reject(9), reject(12), reject(20)]);
        writer.flush().await.unwrap();
        assert_eq!(offsets(&storage).await, [(-1, 5), (0, 3), (0, 9), (0, 12), (0, 20)]);
        let letters = dead_letters(&storage, "t").await.unwrap();
        assert_eq!(letters[1].reason, "\"bad\"\nat 3");
        assert_eq!(letters[1].time, "1969-12-31T23:59:59.999999Z");
        assert_eq!(letters[1].bytes().unwrap(), [0, 159, 146, 3]);
        assert!(dir.path().join("dead-letters/t/0-0000000000000000003.ndjson").exists());
    }
}
