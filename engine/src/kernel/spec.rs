//! What a timeline holds and what is computed from it: the compiled middle of a feature view.
//!
//! `plan` makes a [`TimelineSpec`] from a view's logical plan; the kernel knows nothing of SQL.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::AggregateUDF;

/// The compiled middle of a feature view: between the row stage and the projection.
#[derive(Debug, Clone)]
pub struct TimelineSpec {
    /// The columns that a timeline stores of each event: aggregate arguments and filters, each once,
    /// however many aggregates use it. The event time, the offset and the event id stand beside them.
    pub columns: Vec<Field>,
    pub frames: Vec<Frame>,
    pub aggregates: Vec<Aggregate>,
    /// Tile length in microseconds, for a tiled view.
    pub tile: Option<i64>,
    /// How much longer than its longest frame a timeline keeps events, in microseconds: how late an event
    /// may come, and how far back an `as_of` read reaches.
    pub lateness: i64,
    /// How far past the clock an event time may lie, in microseconds: a read at now may be as much older than the
    /// key's newest event.
    pub ahead: i64,
    /// The type of the source's `event_id` column, if it names one: equal id and event time are one event.
    pub event_id: Option<Field>,
}

/// One window frame, ending at or before the read instant `t`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Events with `t - start <= event_time <= t - end`, both ends and all ties included; no start is `UNBOUNDED PRECEDING`.
    Range { start: Option<Interval>, end: Interval },
    /// The `start + 1` latest events at or before `t` (all of them without a start), less the `end` latest.
    Rows { start: Option<u64>, end: u64 },
}

/// A calendar interval, subtracted from an instant as SQL does: months first (clamped to the month's end), then days, then microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

/// One aggregate over one frame.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub function: Function,
    /// None for `COUNT(*)`.
    pub args: Vec<Argument>,
    /// Index of a boolean column: only events where it is true count.
    pub filter: Option<usize>,
    pub distinct: bool,
    /// `IGNORE NULLS` on FIRST_VALUE, LAST_VALUE and NTH_VALUE.
    pub ignore_nulls: bool,
    /// Index into [`TimelineSpec::frames`].
    pub frame: usize,
    /// Name, type and nullability of the result, as DataFusion gives them.
    pub output: FieldRef,
}

/// What an aggregate is applied to.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// Index into [`TimelineSpec::columns`].
    Column(usize),
    /// A constant (STRING_AGG's separator, a percentile): accumulators want to see it as a literal expression.
    Constant(ScalarValue),
}

#[derive(Debug, Clone)]
pub enum Function {
    /// A DataFusion aggregate. The kernel has typed folds for the common ones, by their name and argument
    /// types, and runs the others through their own accumulator over the frame's rows in timeline order.
    Udaf(Arc<AggregateUDF>),
    FirstValue,
    LastValue,
    /// The n-th row of the frame, from 1; from the end when negative.
    NthValue(i64),
}

impl Function {
    /// As SQL calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Udaf(function) => function.name(),
            Self::FirstValue => "first_value",
            Self::LastValue => "last_value",
            Self::NthValue(_) => "nth_value",
        }
    }
}
