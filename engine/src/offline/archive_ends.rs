//! How far a partition's archive goes, where what came after its last event was refused.
//!
//! `archive/<source>/_ends/<partition>.json`, `{"after": …, "end": …}`: the archive's last event lies just before `after`, and
//! from there on to below `end` no event was accepted. So what was refused is never judged again, under a contract that may
//! have changed since, while a copy of it that was sent again is an event already. It holds while the archive ends at
//! `after`: of files that are gone since it says nothing, and they come back from the source.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{OfflineError, Storage, failed};

#[derive(Debug, Serialize, Deserialize)]
struct End {
    after: i64,
    end: i64,
}

/// Remembers that a partition's archive goes to `end`, though its last event lies before `after`.
pub(super) async fn remember(
    storage: &Storage,
    source: &str,
    partition: i32,
    (after, end): (i64, i64),
) -> Result<(), OfflineError> {
    let path = storage.path(&["archive", source, "_ends", &format!("{partition}.json")]);
    let text = serde_json::to_vec(&End { after, end }).map_err(failed(&path, "can't encode"))?;
    storage.put(&path, Bytes::from(text)).await
}

/// How far partitions go, of which `ends` has the offset after the last event.
pub(super) async fn beyond(
    storage: &Storage,
    source: &str,
    mut ends: BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>, OfflineError> {
    for (partition, (after, end)) in remembered(storage, source).await? {
        let known = ends.get(&partition).copied().unwrap_or(0);
        if after == known && end > known {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}

/// What is remembered: the offset after the last event, and the one that nothing was accepted below.
pub(super) async fn remembered(storage: &Storage, source: &str) -> Result<BTreeMap<i32, (i64, i64)>, OfflineError> {
    let mut remembered = BTreeMap::new();
    for file in storage.list(&storage.path(&["archive", source, "_ends"]), "json").await? {
        let foreign = |cause: String| OfflineError::Foreign { path: file.location.to_string(), cause };
        let partition = file.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        let partition = partition.ok_or_else(|| foreign("expected a name such as 0.json".to_owned()))?;
        let text = storage.get(&file.location).await?;
        let End { after, end } = serde_json::from_slice(&text).map_err(|e| foreign(e.to_string()))?;
        remembered.insert(partition, (after, end));
    }
    Ok(remembered)
}
