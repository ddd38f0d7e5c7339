//! Frames and state in words.

use super::facts::{Column, State};
use crate::kernel::{Frame, Interval, Kernel};
use crate::plan::FeatureView;
use crate::plan::words::{self, counted, duration, sql_type};

/// The events that a frame covers at a read instant.
pub fn covers(frame: &Frame, tile: Option<i64>) -> String {
    match frame {
        Frame::Range { start, end } => {
            let rounded = match (start, tile) {
                (Some(_), Some(tile)) => format!("; the start is rounded down to a whole {}", duration(tile)),
                _ => String::new(),
            };
            format!("{}{rounded}", range(start.as_ref(), end))
        }
        Frame::Rows { start: None, end: 0 } => "all events up to and including the read instant".into(),
        Frame::Rows { start: None, end } => {
            format!("all events up to and including the read instant, but the latest {end}")
        }
        Frame::Rows { start: Some(0), end: 0 } => "the latest event at or before the read instant".into(),
        Frame::Rows { start: Some(start), end: 0 } => {
            format!("the {} latest events at or before the read instant", start + 1)
        }
        Frame::Rows { start: Some(start), end } => {
            let count = start + 1 - end.min(start);
            let behind = counted(i64::try_from(*end).unwrap_or(i64::MAX), "event");
            format!(
                "{}, behind the latest {behind} at or before the read instant",
                counted(i64::try_from(count).unwrap_or(i64::MAX), "event")
            )
        }
    }
}

fn range(start: Option<&Interval>, end: &Interval) -> String {
    let now = *end == Interval::default();
    match start {
        None if now => "everything up to and including the read instant".into(),
        None => format!("everything up to and including {} before the read instant", words::interval(end)),
        Some(start) if *start == Interval::default() => {
            "only events at the read instant itself, all ties included".into()
        }
        Some(start) if now => format!(
            "the last {}, up to and including the read instant; both ends included",
            one(&words::interval(start))
        ),
        Some(start) => format!(
            "from {} to {} before the read instant; both ends included",
            words::interval(start),
            words::interval(end)
        ),
    }
}

/// "the last hour", not "the last 1 hour".
fn one(interval: &str) -> &str {
    match interval.strip_prefix("1 ") {
        Some(unit) if !unit.contains(' ') => unit,
        _ => interval,
    }
}

/// What a timeline holds, and for how long.
pub fn state(view: &FeatureView) -> State {
    let spec = view.kernel.spec();
    let key: Vec<String> = view.keys.iter().map(|k| k.name().clone()).collect();
    let columns: Vec<Column> = spec
        .columns
        .iter()
        .map(|f| Column {
            name: f.name().clone(),
            data_type: sql_type(f.data_type()),
            expression: None,
            description: None,
        })
        .collect();
    let longest = spec.frames.iter().max_by_key(|f| reach(f)).filter(|f| reach(f) > 0);
    let unbounded = |frame: &Frame| matches!(frame, Frame::Range { start: None, .. } | Frame::Rows { start: None, .. });
    let over_unbounded = spec.aggregates.iter().filter(|a| unbounded(&spec.frames[a.frame]));
    let (typed, other): (Vec<_>, Vec<_>) = over_unbounded.partition(|a| typed(view, a));
    let base = other.is_empty() && !typed.is_empty();
    let kept =
        other.is_empty().then(|| longest.map_or(0, reach).saturating_add(spec.lateness).saturating_add(spec.ahead));
    let kept_rows = spec.frames.iter().map(rows).max().unwrap_or(0);

    let mut notes = vec![];
    match kept {
        None => {
            let names: Vec<String> = other.iter().map(|a| super::view::label(spec, a)).collect();
            notes.push((
                "kept".into(),
                format!("every event for ever: {} over an unbounded window needs them all", words::list(&names)),
            ));
        }
        Some(kept) => {
            let of = match longest {
                Some(frame) => format!(
                    "the longest window ({}), the lateness ({}) and how far ahead of the clock an event may be ({})",
                    words::interval(&reach_interval(frame)),
                    duration(spec.lateness),
                    duration(spec.ahead)
                ),
                None => format!(
                    "the lateness ({}) and how far ahead of the clock an event may be ({})",
                    duration(spec.lateness),
                    duration(spec.ahead)
                ),
            };
            notes.push(("kept".into(), format!("{} behind the key's newest event: {of}", duration(kept))));
            if kept_rows > 0 {
                let rows = counted(i64::try_from(kept_rows).unwrap_or(i64::MAX), "event");
                notes.push(("and".into(), format!("the latest {rows}, however old")));
            }
        }
    }
    if let Some(tile) = spec.tile {
        notes.push((
            "tiles".into(),
            format!(
                "rows for the newest two tiles of {}; what is older is one partial state a tile for each aggregate",
                duration(tile)
            ),
        ));
    }
    if base {
        notes.push(("base".into(), "what is older folds into one base state for the unbounded windows, late events too: nothing is ever lost from them".into()));
    }
    if view.source.event_id.is_some() && (base || spec.tile.is_some()) {
        notes.push((
            "ids".into(),
            "of an event that is no longer a row, a 64-bit hash of its id and time, to know a duplicate by".into(),
        ));
    }
    match kept {
        None => notes.push(("late events".into(), "land in their place, however late".into())),
        Some(kept) if base => notes.push((
            "late events".into(),
            format!("land in their place; those older than {}, in the base state", duration(kept)),
        )),
        Some(kept) => notes.push((
            "late events".into(),
            format!(
                "land in their place; those older than {} are dropped and counted in a metric (the archive keeps them)",
                duration(kept)
            ),
        )),
    }
    if kept.is_some() {
        let sealed = if spec.tile.is_some() { ", or an instant inside an older tile," } else { "" };
        notes.push(("past reads".into(), format!(
            "exact up to {} before the key's newest event; what needs older events{sealed} answers OUTSIDE_RETENTION",
            duration(spec.lateness)
        )));
    }
    State {
        key,
        columns,
        event_id: view.source.event_id.clone(),
        tile_micros: spec.tile,
        lateness_micros: spec.lateness,
        kept_micros: kept,
        kept_rows,
        base,
        notes,
    }
}

/// Whether an aggregate has a fold of our own.
pub fn typed(view: &FeatureView, aggregate: &crate::kernel::Aggregate) -> bool {
    let spec = view.kernel.spec();
    let types: Vec<_> = aggregate.args.iter().map(|arg| super::view::argument_type(spec, arg)).collect();
    Kernel::is_typed(&aggregate.function, &types, aggregate.distinct)
}

/// Microseconds that a frame reaches back; a frame of rows reaches back none.
fn reach(frame: &Frame) -> i64 {
    match frame {
        Frame::Range { .. } => reach_interval(frame).longest_micros(),
        Frame::Rows { .. } => 0,
    }
}

fn reach_interval(frame: &Frame) -> Interval {
    match frame {
        Frame::Range { start: Some(start), end } if start.longest_micros() >= end.longest_micros() => *start,
        Frame::Range { end, .. } => *end,
        Frame::Rows { .. } => Interval::default(),
    }
}

fn rows(frame: &Frame) -> u64 {
    match frame {
        Frame::Range { .. } => 0,
        Frame::Rows { start: Some(start), .. } => start.saturating_add(1),
        Frame::Rows { start: None, end } => *end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Interval = Interval { months: 0, days: 0, micros: 3_600_000_000 };
    const DAY: Interval = Interval { months: 0, days: 1, micros: 0 };

    #[test]
    fn frames_read_as_sentences() {
        let now = Interval::default();
        let cases = [
            (
                Frame::Range { start: Some(HOUR), end: now },
                None,
                "the last hour, up to and including the read instant; both ends included",
            ),
            (
                Frame::Range { start: Some(DAY), end: HOUR },
                None,
                "from 1 day to 1 hour before the read instant; both ends included",
            ),
            (Frame::Range { start: None, end: now }, None, "everything up to and including the read instant"),
            (
                Frame::Range { start: None, end: HOUR },
                None,
                "everything up to and including 1 hour before the read instant",
            ),
            (
                Frame::Range { start: Some(DAY), end: now },
                Some(300_000_000),
                "the last day, up to and including the read instant; both ends included; the start is rounded down to a whole 5 minutes",
            ),
            (Frame::Rows { start: Some(9), end: 0 }, None, "the 10 latest events at or before the read instant"),
            (
                Frame::Rows { start: Some(9), end: 1 },
                None,
                "9 events, behind the latest 1 event at or before the read instant",
            ),
            (Frame::Rows { start: Some(0), end: 0 }, None, "the latest event at or before the read instant"),
        ];
        for (frame, tile, words) in cases {
            assert_eq!(covers(&frame, tile), words);
        }
    }
}
