//! What looks at every key: measuring, and forgetting.

use std::collections::{BTreeMap, HashSet};

use redis::{RedisError, Value, cmd, from_redis_value};

use super::link::Node;
use super::{RedisStore, layout, least};
use crate::online::{Believed, Dropped, StoreError, Usage, ViewId};

/// Keys of a view whose bytes are measured.
const SAMPLE: usize = 200;
/// Keys that one step of a scan looks at.
const SCAN: usize = 1000;

impl RedisStore {
    /// The keys that match a pattern, on all servers, in no order.
    pub(super) async fn scan(&self, pattern: String) -> Result<HashSet<String>, StoreError> {
        let mut keys = HashSet::new();
        let mut pages = self.pages(pattern).await?;
        while let Some(page) = pages.next().await? {
            keys.extend(page);
        }
        Ok(keys)
    }

    pub(super) async fn measure(&self) -> Result<BTreeMap<ViewId, Usage>, StoreError> {
        let what = "can't measure";
        let mut keys: BTreeMap<ViewId, Vec<String>> = BTreeMap::new();
        let mut counts: BTreeMap<ViewId, u64> = BTreeMap::new();
        for key in self.scan(self.layout.all()).await? {
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

    pub(super) async fn forget_partitions(&self, dropped: &Dropped) -> Result<(), StoreError> {
        let what = "can't drop partitions";
        let dropped: BTreeMap<&ViewId, &Believed> = dropped.iter().filter(|(_, dropped)| !dropped.is_empty()).collect();
        // Progress first: whoever comes in the middle finds less than there is, never more.
        let mut progress = vec![];
        for (view, partitions) in &dropped {
            let each = self.progress_of_each(view).await?;
            let held = least(each.clone());
            if partitions.iter().any(|(partition, believed)| held.get(partition) != believed.as_ref()) {
                return Err(self.taken_up(view));
            }
            let there = |held: &BTreeMap<i32, i64>| partitions.keys().any(|partition| held.contains_key(partition));
            for (tag, _) in self.tags.iter().zip(&each).filter(|(_, held)| there(held)) {
                let mut delete = cmd("HDEL");
                delete.arg(self.layout.progress(view, tag)).arg(partitions.keys().collect::<Vec<_>>());
                progress.push(delete);
            }
        }
        self.all(what, progress).await?;
        let pattern = match dropped.first_key_value() {
            None => return Ok(()),
            Some((view, _)) if dropped.len() == 1 => self.layout.pattern(view),
            Some(_) => self.layout.all(),
        };
        let mut pages = self.pages(pattern).await?;
        while let Some(page) = pages.next().await? {
            let of_view = |key: String| {
                let view = self.layout.view_of(&key)?;
                dropped.get_key_value(&view).map(|(view, partitions)| (key, *view, *partitions))
            };
            let keys: Vec<(String, &ViewId, &Believed)> = page.into_iter().filter_map(of_view).collect();
            self.forget_fields(keys, what).await?;
        }
        Ok(())
    }

    /// Deletes the fields of some partitions of keys.
    async fn forget_fields(
        &self,
        keys: Vec<(String, &ViewId, &Believed)>,
        what: &'static str,
    ) -> Result<(), StoreError> {
        let fields = keys.iter().map(|(key, _, _)| {
            let mut fields = cmd("HKEYS");
            fields.arg(key);
            fields
        });
        let fields = self.all(what, fields.collect()).await?;
        let (mut deletes, mut views) = (vec![], BTreeMap::new());
        for ((key, view, partitions), fields) in keys.into_iter().zip(fields) {
            let fields: Vec<String> = from_redis_value(fields).map_err(|e| self.failed(what)(RedisError::from(e)))?;
            let of_partition = |field: &String| layout::partition(field).is_some_and(|p| partitions.contains_key(&p));
            let fields: Vec<String> = fields.into_iter().filter(of_partition).collect();
            if !fields.is_empty() {
                let mut delete = cmd("HDEL");
                delete.arg(key).arg(fields);
                deletes.push(delete);
                views.insert(view, partitions);
            }
        }
        for (view, partitions) in views {
            self.check_left(view, |partition| partitions.contains_key(&partition)).await?;
        }
        self.all(what, deletes).await.map(|_| ())
    }

    /// Whoever took a view up since its progress was dropped may have written what is deleted next.
    async fn check_left(&self, view: &ViewId, dropped: impl Fn(i32) -> bool) -> Result<(), StoreError> {
        let each = self.progress_of_each(view).await?;
        match each.iter().flat_map(BTreeMap::keys).any(|partition| dropped(*partition)) {
            true => Err(self.taken_up(view)),
            false => Ok(()),
        }
    }

    fn taken_up(&self, view: &ViewId) -> StoreError {
        StoreError::TakenUp { at: self.at.clone(), view: view.name.clone() }
    }

    pub(super) async fn forget_view(&self, view: &ViewId) -> Result<(), StoreError> {
        let what = "can't drop a view";
        let unlink = |key: String| {
            let mut unlink = cmd("UNLINK");
            unlink.arg(key);
            unlink
        };
        let progress = self.tags.iter().map(|tag| self.layout.progress(view, tag));
        self.all(what, progress.map(unlink).collect()).await?;
        let mut pages = self.pages(self.layout.pattern(view)).await?;
        while let Some(page) = pages.next().await? {
            if !page.is_empty() {
                self.check_left(view, |_| true).await?;
                self.all(what, page.into_iter().map(unlink).collect()).await?;
            }
        }
        self.check_left(view, |_| true).await?;
        let mut remove = cmd("SREM");
        remove.arg(self.layout.views()).arg(self.layout.member(view));
        self.all(what, vec![remove]).await?;
        self.lock().known.remove(view);
        Ok(())
    }

    /// The keys that match a pattern, some at a time.
    async fn pages(&self, pattern: String) -> Result<Pages<'_>, StoreError> {
        let nodes = self.link.masters().await.map_err(self.failed(LIST))?;
        Ok(Pages { store: self, pattern, nodes, cursor: START.to_owned() })
    }
}

const LIST: &str = "can't list keys";
const START: &str = "0";

/// A scan of all servers. A key may come twice.
struct Pages<'s> {
    store: &'s RedisStore,
    pattern: String,
    /// Those that are not done.
    nodes: Vec<Node>,
    cursor: String,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<String>>, StoreError> {
        let Some(node) = self.nodes.last() else { return Ok(None) };
        let failed = self.store.failed(LIST);
        let mut scan = cmd("SCAN");
        scan.arg(&self.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(SCAN);
        let answer = self.store.link.on(node, scan).await.map_err(&failed)?;
        let (next, found): (String, Vec<Vec<u8>>) =
            from_redis_value(answer).map_err(|e| failed(RedisError::from(e)))?;
        if next == START {
            self.nodes.pop();
        }
        self.cursor = next;
        Ok(Some(found.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect()))
    }
}
