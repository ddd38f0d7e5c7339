//! The events that a frame covers at an instant, and whether a timeline still has them all.

use std::ops::Range;

use super::compile::Kernel;
use super::spec::Frame;
use super::tile::floor;
use super::timeline::Timeline;

/// The part of a timeline that a frame covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cover {
    pub rows: Range<usize>,
    /// Of these tiles, those that hold no event after `until`.
    pub tiles: Range<usize>,
    pub until: i64,
    /// And all that was folded into the base.
    pub base: bool,
}

impl Kernel {
    /// What a frame covers at `t`; `None` where the timeline no longer has all of it.
    pub(super) fn cover(&self, timeline: &Timeline, frame: &Frame, t: i64) -> Option<Cover> {
        match frame {
            Frame::Range { start, end } => self.range(timeline, start.map(|start| start.before(t)), end.before(t)),
            Frame::Rows { start, end } => rows(timeline, *start, *end, t),
        }
    }

    /// Both ends included. In a tiled view the start is rounded down to its tile.
    fn range(&self, timeline: &Timeline, start: Option<i64>, until: i64) -> Option<Cover> {
        let start = match (start, self.spec.tile) {
            (Some(start), Some(tile)) => Some(floor(start, tile)),
            (start, _) => start,
        };
        let nothing = timeline.oldest.is_none_or(|oldest| until < oldest) || start.is_some_and(|start| start > until);
        if nothing {
            return Some(Cover::default());
        }
        let exact = timeline.complete_after.is_none_or(|complete_after| match start {
            Some(start) => complete_after < start,
            None => complete_after <= until,
        });
        let times = timeline.times.values();
        let from = start.unwrap_or(i64::MIN);
        let first = timeline.tiles.partition_point(|tile| tile.start < from);
        let tiles = first..timeline.tiles.partition_point(|tile| tile.start <= until).max(first);
        let cut = timeline.tiles[tiles.clone()].iter().any(|tile| tile.min <= until && until < tile.max);
        if !exact || cut {
            return None;
        }
        let first = times.partition_point(|time| *time < from);
        let rows = first..times.partition_point(|time| *time <= until).max(first);
        Some(Cover { rows, tiles, until, base: start.is_none() })
    }
}

/// The `start + 1` latest rows at or before `t` (all without a start), less the `end` latest.
fn rows(timeline: &Timeline, start: Option<u64>, end: u64, t: i64) -> Option<Cover> {
    let times = timeline.times.values();
    let seen = times.partition_point(|time| *time <= t);
    let latest = |count: u64| usize::try_from(count).ok().and_then(|count| seen.checked_sub(count));
    let first = match start {
        Some(start) => latest(start.saturating_add(1)),
        None => Some(0),
    };
    let last = latest(end);
    // What is trimmed can't be among rows that are all newer.
    let newer = |row: Option<usize>| match (timeline.complete_after, row) {
        (None, _) => true,
        (Some(complete_after), Some(row)) => row == seen || complete_after < times[row],
        (Some(_), None) => false,
    };
    let exact = match start {
        Some(_) => newer(first),
        None => newer(last) && timeline.complete_after.is_none_or(|complete_after| complete_after <= t),
    };
    let before_all = timeline.oldest.is_none_or(|oldest| t < oldest);
    if before_all {
        return Some(Cover::default());
    }
    let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
    exact.then(|| Cover { rows: first..last.max(first), tiles: 0..0, until: t, base: start.is_none() })
}
