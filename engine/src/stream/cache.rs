//! A bounded write-through cache of pieces: what the fold touches again soon need not be read from the store.

use std::collections::HashMap;

use crate::kernel::{EntityKey, Piece};

/// Two generations: when the young one is full it becomes the old one, and what is not touched again is forgotten
/// with it. That is least-recently-used, near enough, with no list to keep.
#[derive(Debug)]
pub struct Cache {
    young: HashMap<(EntityKey, i32), Piece>,
    old: HashMap<(EntityKey, i32), Piece>,
    young_bytes: usize,
    capacity: usize,
}

impl Cache {
    /// Holds about this many bytes of pieces.
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, capacity }
    }

    /// Takes a piece out; the caller changes it and puts it back once it is stored.
    pub fn take(&mut self, key: &EntityKey, partition: i32) -> Option<Piece> {
        let id = (key.clone(), partition);
        if let Some(piece) = self.young.remove(&id) {
            self.young_bytes = self.young_bytes.saturating_sub(piece.size());
            return Some(piece);
        }
        self.old.remove(&id)
    }

    pub fn clear(&mut self) {
        self.old.clear();
        self.young.clear();
        self.young_bytes = 0;
    }

    /// Forgets the pieces of a partition.
    pub fn forget(&mut self, partition: i32) {
        self.old.retain(|(_, p), _| *p != partition);
        self.young.retain(|(_, p), _| *p != partition);
        self.young_bytes = self.young.values().map(Piece::size).sum();
    }

    pub fn put(&mut self, key: EntityKey, partition: i32, piece: Piece) {
        self.young_bytes += piece.size();
        self.young.insert((key, partition), piece);
        if self.young_bytes > self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}
