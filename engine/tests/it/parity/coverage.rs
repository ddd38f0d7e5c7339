//! What the drawn cases covered, so that the test can't silently lose a part of the language.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::engine::Run;
use super::view::{Frame, Reference, View};
use super::world::{Way, World};

#[derive(Debug, Default, Clone)]
pub struct Coverage {
    counts: BTreeMap<String, usize>,
}

impl Coverage {
    pub fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    pub fn of(&self, what: &str) -> usize {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_insert(0) += count;
        }
    }

    pub fn world(&mut self, world: &World, run: &Run) {
        let shape = &world.shape;
        self.count(&format!("stream: doubles {:?}", shape.doubles).to_lowercase());
        self.count(&format!("stream: partitions {}", shape.partitions));
        self.count(&format!("stream: a {} apart", shape.scale.name));
        for (what, is) in [
            ("stream: through log, decoder and archive", world.way == Way::Log),
            ("stream: a history", world.live().len() < world.events.len()),
            ("stream: a history and nothing else", !world.events.is_empty() && world.live().is_empty()),
            ("stream: event ids", shape.event_id),
            ("stream: copies across partitions", shape.across),
            ("stream: before 1970", world.events.iter().any(|e| e.time < 0)),
            ("stream: no events", world.events.is_empty()),
            ("stream: hundreds of events", world.events.len() > 300),
            ("stream: NULL keys", world.events.iter().any(|e| e.user.is_none())),
            (
                "stream: ties",
                world.events.iter().enumerate().any(|(i, e)| world.events[..i].iter().any(|f| f.time == e.time)),
            ),
            ("stream: late events", world.events.windows(2).any(|w| w[0].time > w[1].time)),
            (
                "table with history: an event at a row's instant",
                world.events.iter().any(|e| world.rates.has(e.city, e.time, 0)),
            ),
            (
                "table with history: an event at a row's oldest",
                world
                    .events
                    .iter()
                    .any(|e| world.rates.max_age.is_some_and(|age| world.rates.has(e.city, e.time, age))),
            ),
            ("table with history: no rows", world.rates.rows.is_empty()),
            ("table with history: max_age", world.rates.max_age.is_some()),
            ("table with history: rows without a key", world.rates.rows.iter().any(|row| row.place.is_none())),
            ("stream: interrupted", run.interrupted > 0),
            ("stream: store reopened", run.reopened > 0),
            ("stream: filled from the past", run.filled > 0),
        ] {
            if is {
                self.count(what);
            }
        }
    }

    pub fn view(&mut self, view: &View) {
        self.count("cases");
        self.count(&format!("row stage: {:?}", view.rows.style).to_lowercase());
        self.count(&format!("keys: {}", view.keys.len()));
        self.count(&format!("key type: {}", view.keys[0].sql_type));
        let lateness =
            view.lateness.as_ref().map_or("default", |l| if l.1 > 300 * super::events::DAY { "long" } else { "short" });
        self.count(&format!("lateness: {lateness}"));
        for (what, is) in [
            ("row stage: dimension join", view.rows.join.is_some()),
            ("row stage: table with history", view.rows.rates),
            ("row stage: both kinds of table", view.rows.rates && view.rows.join.is_some()),
            ("row stage: WHERE", view.rows.inner.is_some() || view.rows.outer.is_some()),
            ("row stage: computed columns", !view.rows.computed.is_empty()),
            ("row stage: timestamp renamed", view.time != "event_time"),
            ("row stage: key renamed or computed", view.keys.iter().any(|k| k.name != k.expr)),
            ("tiled", view.tile.is_some()),
            ("tiled and unbounded", view.tile.is_some() && view.frames().iter().any(|f| f.is_unbounded())),
            ("expressions in an outer SELECT", view.nested),
        ] {
            if is {
                self.count(what);
            }
        }
        for feature in view.features.iter().filter(|f| !f.plain()) {
            self.count(&format!("expression: {}", feature.template));
        }
        for aggregate in &view.aggregates {
            self.count(&format!("aggregate: {}", aggregate.function));
            if aggregate.distinct {
                self.count(&format!("aggregate: {} DISTINCT", aggregate.function));
            }
            if aggregate.ignore_nulls {
                self.count("aggregate: IGNORE NULLS");
            }
            if aggregate.filter.is_some() {
                self.count("aggregate: FILTER");
            }
            let window = &view.windows[aggregate.window];
            self.count(&format!("frame: {}", kind(&window.frame)));
            self.count(match window.reference {
                Reference::Named => "window: named",
                Reference::Inline => "window: spelled out",
                Reference::Extended => "window: extends another",
            });
        }
    }

    /// What every run of some length must have met.
    pub fn missing(&self) -> Vec<&'static str> {
        MUST.iter().copied().filter(|what| self.of(what) == 0).collect()
    }

    pub fn report(&self) -> String {
        let mut text = String::new();
        for (what, count) in &self.counts {
            let _ = writeln!(text, "  {count:>9}  {what}");
        }
        text
    }
}

fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Range { start: None, end } if end.is_zero() => "RANGE UNBOUNDED",
        Frame::Range { start: None, .. } => "RANGE UNBOUNDED, ends before",
        Frame::Range { start: Some(start), .. } if start.is_zero() => "RANGE CURRENT ROW",
        Frame::Range { start: Some(start), end } if start.months > 0 && !end.is_zero() => "RANGE months, ends before",
        Frame::Range { start: Some(start), .. } if start.months > 0 => "RANGE months",
        Frame::Range { end, .. } if end.is_zero() => "RANGE",
        Frame::Range { .. } => "RANGE, ends before",
        Frame::Rows { start: None, .. } => "ROWS UNBOUNDED",
        Frame::Rows { end: 0, .. } => "ROWS",
        Frame::Rows { .. } => "ROWS, ends before",
    }
}

const MUST: &[&str] = &[
    "aggregate: count",
    "aggregate: count DISTINCT",
    "aggregate: sum",
    "aggregate: sum DISTINCT",
    "aggregate: avg",
    "aggregate: avg DISTINCT",
    "aggregate: min",
    "aggregate: max",
    "aggregate: var_samp",
    "aggregate: var_pop",
    "aggregate: stddev_samp",
    "aggregate: stddev_pop",
    "aggregate: first_value",
    "aggregate: last_value",
    "aggregate: nth_value",
    "aggregate: array_agg",
    "aggregate: array_agg DISTINCT",
    "aggregate: string_agg",
    "aggregate: median",
    "aggregate: approx_distinct",
    "aggregate: bool_and",
    "aggregate: bool_or",
    "aggregate: bit_and",
    "aggregate: bit_or",
    "aggregate: bit_xor",
    "aggregate: corr",
    "aggregate: covar_samp",
    "aggregate: covar_pop",
    "aggregate: regr_slope",
    "aggregate: FILTER",
    "aggregate: IGNORE NULLS",
    "frame: RANGE",
    "frame: RANGE, ends before",
    "frame: RANGE CURRENT ROW",
    "frame: RANGE UNBOUNDED",
    "frame: RANGE UNBOUNDED, ends before",
    "frame: RANGE months",
    "frame: RANGE months, ends before",
    "frame: ROWS",
    "frame: ROWS, ends before",
    "frame: ROWS UNBOUNDED",
    "window: named",
    "window: spelled out",
    "window: extends another",
    "row stage: direct",
    "row stage: subquery",
    "row stage: cte",
    "row stage: createview",
    "row stage: dimension join",
    "row stage: table with history",
    "row stage: both kinds of table",
    "row stage: WHERE",
    "row stage: computed columns",
    "row stage: timestamp renamed",
    "row stage: key renamed or computed",
    "tiled",
    "tiled and unbounded",
    "expressions in an outer SELECT",
    "keys: 1",
    "keys: 2",
    "lateness: default",
    "lateness: long",
    "lateness: short",
    "stream: doubles dyadic",
    "stream: doubles money",
    "stream: doubles special",
    "stream: doubles huge",
    "stream: partitions 1",
    "stream: partitions 3",
    "stream: a history",
    "stream: event ids",
    "stream: copies across partitions",
    "stream: before 1970",
    "stream: hundreds of events",
    "stream: NULL keys",
    "stream: ties",
    "stream: through log, decoder and archive",
    "stream: late events",
    "stream: interrupted",
    "stream: store reopened",
    "stream: filled from the past",
    "table with history: an event at a row's instant",
    "table with history: an event at a row's oldest",
    "table with history: no rows",
    "table with history: max_age",
    "table with history: rows without a key",
    "as of a request: a row",
    "as of a request: a row's own instant",
    "as of a request: a row at its oldest",
    "as of a request: no row",
    "as of a request: no key",
    "values of a table with history, all three",
    "status PRESENT",
    "status NOT_FOUND",
    "status OUTSIDE_RETENTION",
    "status NULL_KEY",
    "oracle: one aggregate a frame",
    "oracle: window expressions",
    "training set: spilled",
    "training set: a bucket too large",
    "training set: row groups of a history left out",
    "training set: events in order",
    "training set: events in order, spilled",
    "values online = offline",
    "values = plain DataFusion",
];
