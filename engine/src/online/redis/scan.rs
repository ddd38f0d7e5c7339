//! What looks at every key: measuring, and forgetting.

use std::collections::{BTreeMap, HashSet};

use redis::{RedisError, Value, cmd, from_redis_value};

use super::{RedisStore, layout};
use crate::online::{StoreError, Usage, ViewId};

/// Keys of a view whose bytes are measured.
const SAMPLE: usize = 200;
/// Keys that one step of a scan looks at.
const SCAN: usize = 1000;

impl RedisStore {
    /// The keys that match a pattern, on all servers, in no order.
    pub(super) async fn scan(&self, pattern: &str) -> Result<HashSet<String>, StoreError> {
        let failed = self.failed("can't list keys");
        let mut keys = HashSet::new();
        for node in self.link.masters().await.map_err(&failed)? {
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN);
                let answer = self.link.on(&node, scan).await.map_err(&failed)?;
                let (next, found): (String, Vec<Vec<u8>>) =
                    from_redis_value(answer).map_err(|e| failed(RedisError::from(e)))?;
                keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(keys)
    }

    pub(super) async fn measure(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        let what = "can't measure";
        let mut keys: BTreeMap<ViewId, Vec<String>> = BTreeMap::new();
        let mut counts: BTreeMap<ViewId, u64> = BTreeMap::new();
        for key in self.scan(&self.layout.all()).await? {
            let Some(view) = self.layout.view_of(&key) else { continue };
            *counts.entry(view.clone()).or_default() += 1;
            let sample = keys.entry(view).or_default();
            if sample.len() < SAMPLE {
                sample.push(key);
            }
        }
        let mut used = BTreeMap::new();
        for (view, sample) in keys {
            let measure = sample.iter().map(|key| {
                let mut usage = cmd("MEMORY");
                usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
                usage
            });
            // A key that expired since is none.
            let bytes = self.all(what, measure.collect()).await?.into_iter().filter_map(|answer| match answer {
                Value::Int(bytes) => u64::try_from(bytes).ok(),
                _ => None,
            });
            let keys = counts.get(&view).copied().unwrap_or(0);
            let bytes = bytes.sum::<u64>() * keys / sample.len().max(1) as u64;
            used.insert(view, Usage { keys, bytes });
        }
        Ok(used)
    }

    pub(super) async fn forget_partitions(&self, view: &ViewId, partitions: &[i32]) -> Result<(), StoreError> {
        let what = "can't drop partitions";
        if partitions.is_empty() {
            return Ok(());
        }
        let held = async || -> Result<Vec<Vec<Option<i64>>>, StoreError> {
            let each = self.progress_of_each(view).await?;
            Ok(each.iter().map(|held| partitions.iter().map(|p| held.get(p).copied()).collect()).collect())
        };
        let before = held().await?;
        let pieces = self.pieces_of(view, partitions, what).await?;
        // Who took the view up while this looked at its keys may have written some of them.
        if held().await? != before {
            return Err(StoreError::TakenUp { at: self.at.clone(), view: view.name.clone() });
        }
        // Progress first: whoever comes in the middle finds less than there is, never more.
        let progress = self.tags.iter().map(|tag| {
            let mut delete = cmd("HDEL");
            delete.arg(self.layout.progress(view, tag)).arg(partitions);
            delete
        });
        self.all(what, progress.collect()).await?;
        let deletes = pieces.into_iter().map(|(key, fields)| {
            let mut delete = cmd("HDEL");
            delete.arg(key).arg(fields);
            delete
        });
        self.all(what, deletes.collect()).await.map(|_| ())
    }

    /// The fields of some partitions, by key.
    async fn pieces_of(
        &self,
        view: &ViewId,
        partitions: &[i32],
        what: &'static str,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let keys: Vec<String> = self.scan(&self.layout.pattern(view)).await?.into_iter().collect();
        let fields = keys.iter().map(|key| {
            let mut fields = cmd("HKEYS");
            fields.arg(key);
            fields
        });
        let fields = self.all(what, fields.collect()).await?;
        let mut pieces = vec![];
        for (key, fields) in keys.into_iter().zip(fields) {
            let fields: Vec<String> = from_redis_value(fields).map_err(|e| self.failed(what)(RedisError::from(e)))?;
            let of_partition = |field: &String| layout::partition(field).is_some_and(|p| partitions.contains(&p));
            let fields: Vec<String> = fields.into_iter().filter(of_partition).collect();
            if !fields.is_empty() {
                pieces.push((key, fields));
            }
        }
        Ok(pieces)
    }

    pub(super) async fn forget_view(&self, view: &ViewId) -> Result<(), StoreError> {
        let keys = self.scan(&self.layout.pattern(view)).await?;
        let progress = self.tags.iter().map(|tag| self.layout.progress(view, tag));
        let unlink = |key: String| {
            let mut unlink = cmd("UNLINK");
            unlink.arg(key);
            unlink
        };
        self.all("can't drop a view", progress.map(unlink).collect()).await?;
        self.all("can't drop a view", keys.into_iter().map(unlink).collect()).await?;
        let mut remove = cmd("SREM");
        remove.arg(self.layout.views()).arg(self.layout.member(view));
        self.all("can't drop a view", vec![remove]).await?;
        self.lock().known.remove(view);
        Ok(())
    }
}
