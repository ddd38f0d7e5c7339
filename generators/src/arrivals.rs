//! Events in the order in which they arrive.

use std::cmp::Reverse;

use crate::traffic::{BLOCK, Block, SPILL};
use crate::{Event, World};

/// The events of a world that arrive in a range, in arrival order; see [`World::events`].
///
/// Holds what was drawn and has not arrived yet: a block, and those on their way.
pub struct Events<'w> {
    world: &'w World,
    from: i64,
    to: i64,
    next_block: i64,
    /// Latest arrival first, so that the next event is the last.
    pending: Vec<Event>,
}

impl<'w> Events<'w> {
    pub(crate) fn new(world: &'w World, from: i64, to: i64) -> Self {
        // Nothing that begins earlier can arrive in the range.
        let next_block = from.saturating_sub(SPILL + world.config.max_delay).max(i64::MIN / 2).div_euclid(BLOCK);
        Self { world, from, to, next_block, pending: Vec::new() }
    }
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            // An event never arrives before its block starts: all that arrive earlier are here.
            let known = self.next_block.saturating_mul(BLOCK).min(self.to);
            while let Some(event) = self.pending.pop_if(|event| event.arrival < known) {
                if event.arrival >= self.from {
                    return Some(event);
                }
            }
            if known == self.to {
                return None;
            }
            Block::draw(self.world, self.next_block, &mut self.pending);
            self.pending.sort_unstable_by_key(|event| Reverse((event.arrival, event.order)));
            self.next_block += 1;
        }
    }
}
