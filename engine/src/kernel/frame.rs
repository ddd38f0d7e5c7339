//! The events that a frame covers at an instant, and whether a timeline still has them all.

use std::ops::Range;

use super::compile::Kernel;
use super::spec::{Frame, Interval};
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

impl Frame {
    /// The rows of an ascending timeline that lie in the frame at `t`, and are at most `seen`, the number of those at or
    /// before `t`. `earlier` is the same of an earlier instant, from where the search goes on; `0..0` at first.
    pub(super) fn rows(
        &self,
        tile: Option<i64>,
        times: &[i64],
        seen: usize,
        t: i64,
        earlier: Range<usize>,
    ) -> Range<usize> {
        match self {
            Frame::Range { start, end } => {
                // A later instant less a month may be an earlier one: 28 March 23:00, and 31 March 10:00.
                let months = end.months != 0 || start.is_some_and(|start| start.months != 0);
                let (start, until) = instants(*start, *end, tile, t);
                between(times, start.unwrap_or(i64::MIN), until, if months { 0..0 } else { earlier })
            }
            Frame::Rows { start, end } => {
                let latest = |count: u64| seen.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
                let first = start.map_or(0, |start| latest(start.saturating_add(1)));
                first..latest(*end).max(first)
            }
        }
    }
}

/// The first and the last instant of a RANGE frame. In a tiled view the first is rounded down to its tile.
fn instants(start: Option<Interval>, end: Interval, tile: Option<i64>, t: i64) -> (Option<i64>, i64) {
    let start = match (start.map(|start| start.before(t)), tile) {
        (Some(start), Some(tile)) => Some(floor(start, tile)),
        (start, _) => start,
    };
    (start, end.before(t))
}

/// The rows from an instant until another, both included, at or after where an earlier search ended.
fn between(times: &[i64], from: i64, until: i64, earlier: Range<usize>) -> Range<usize> {
    let first = gallop(times, earlier.start, |time| time < from);
    first..gallop(times, earlier.end, |time| time <= until).max(first)
}

/// The first place at or after `from` where `before` no longer holds: in steps that double, since it is mostly near.
pub(super) fn gallop(times: &[i64], from: usize, before: impl Fn(i64) -> bool) -> usize {
    let rest = times.get(from..).unwrap_or(&[]);
    let mut step = 1;
    while rest.get(step - 1).is_some_and(|time| before(*time)) {
        step *= 2;
    }
    let known = step / 2;
    let end = step.min(rest.len());
    from.min(times.len()) + known + rest[known..end].partition_point(|time| before(*time))
}

impl Kernel {
    /// From when on events matter to the values at `t`; `i64::MIN` where all that is older does.
    pub fn since(&self, t: i64) -> i64 {
        let since = self.spec.frames.iter().map(|frame| match frame {
            Frame::Range { start: Some(start), end } => match instants(Some(*start), *end, self.spec.tile, t) {
                (Some(start), until) if start <= until => start,
                // It covers nothing.
                _ => i64::MAX,
            },
            _ => i64::MIN,
        });
        since.min().unwrap_or(i64::MAX)
    }

    /// An instant from which on no frame reaches before another one: the first of all, unless a frame has months. None where frames
    /// always do.
    pub fn reaches_no_further_than(&self, horizon: i64) -> Option<i64> {
        let horizon_of_tail = self.spec.tile.map_or(horizon, |tile| floor(horizon.saturating_add(tile - 1), tile));
        let from = self.spec.frames.iter().map(|frame| match frame {
            Frame::Range { start: Some(start), .. } => Some(horizon_of_tail.saturating_add(start.longest_micros())),
            _ => None,
        });
        Some(from.collect::<Option<Vec<i64>>>()?.into_iter().max().unwrap_or(i64::MIN))
    }

    /// What a frame covers at `t`; `None` where the timeline no longer has all of it.
    pub(super) fn cover(&self, timeline: &Timeline, frame: &Frame, t: i64) -> Option<Cover> {
        match frame {
            Frame::Range { start, end } => {
                let (start, until) = instants(*start, *end, self.spec.tile, t);
                range(timeline, start, until)
            }
            Frame::Rows { start, end } => rows(timeline, *start, *end, t),
        }
    }
}

/// Both ends included.
fn range(timeline: &Timeline, start: Option<i64>, until: i64) -> Option<Cover> {
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
    let rows = between(times, from, until, 0..0);
    Some(Cover { rows, tiles, until, base: start.is_none() })
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
