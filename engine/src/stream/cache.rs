//! A bounded write-through cache of pieces' heads: what is folded into again soon need not be read from the store.
//!
//! A head is kept as it is stored, with its tails: that is what the next events need, in a fifth of the memory that a
//! piece takes, and it is at hand when it is written.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;

use crate::kernel::EntityKey;

/// Two generations: when the young one is full it becomes the old one, and what is not touched again is forgotten
/// with it. That is least-recently-used, near enough, with no list to keep.
#[derive(Debug)]
pub struct Cache {
    young: Heads,
    old: Heads,
    young_bytes: usize,
    old_bytes: usize,
    capacity: usize,
}

type Heads = HashMap<(EntityKey, i32), Bytes, RandomState>;

impl Cache {
    /// Holds about this many bytes.
    pub fn new(capacity: usize) -> Self {
        Self { young: Heads::default(), old: Heads::default(), young_bytes: 0, old_bytes: 0, capacity }
    }

    /// Takes a head out; the caller changes it and puts it back once it is stored.
    pub fn take(&mut self, key: &EntityKey, partition: i32) -> Option<Bytes> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let id = (key.clone(), partition);
        if let Some(head) = self.young.remove(&id) {
            self.young_bytes = self.young_bytes.saturating_sub(size(key, &head));
            return Some(head);
        }
        let head = self.old.remove(&id)?;
        self.old_bytes = self.old_bytes.saturating_sub(size(key, &head));
        Some(head)
    }

    /// Bytes that it holds, about.
    pub fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Forgets the heads of a partition.
    pub fn forget(&mut self, partition: i32) {
        self.old.retain(|(_, p), _| *p != partition);
        self.young.retain(|(_, p), _| *p != partition);
        let held = |heads: &Heads| heads.iter().map(|((key, _), head)| size(key, head)).sum();
        (self.young_bytes, self.old_bytes) = (held(&self.young), held(&self.old));
    }

    pub fn put(&mut self, key: EntityKey, partition: i32, head: Bytes) {
        if self.capacity == 0 {
            return;
        }
        self.young_bytes += size(&key, &head);
        self.young.insert((key, partition), head);
        if self.young_bytes > self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
    }
}

fn size(key: &EntityKey, head: &Bytes) -> usize {
    /// The entry in the table, the owners of key and bytes, and the allocator's rounding.
    const ENTRY: usize = 160;
    ENTRY + key.as_str().len() + head.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: usize) -> EntityKey {
        EntityKey::from(i.to_string())
    }

    #[test]
    fn it_holds_no_more_than_its_capacity_and_what_was_touched_last() {
        let mut cache = Cache::new(100_000);
        for i in 0..1000 {
            cache.put(key(i), 0, vec![0; 500].into());
            let held: usize = cache.young.iter().chain(&cache.old).map(|((key, _), head)| size(key, head)).sum();
            assert_eq!(cache.bytes(), held, "after {i}");
            assert!(held <= 100_000 + 1000, "{held} after {i}");
            if let Some(head) = cache.take(&key(0), 0) {
                cache.put(key(0), 0, head);
            }
        }
        assert!(cache.take(&key(0), 0).is_some(), "touched each time");
        assert!(cache.take(&key(1), 0).is_none() && cache.take(&key(999), 0).is_some());
        cache.forget(0);
        assert!(cache.take(&key(998), 0).is_none());
        assert_eq!((cache.bytes(), cache.young.len() + cache.old.len()), (0, 0));
    }
}
