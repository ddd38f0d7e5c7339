//! Typed folds: the aggregates whose state is small, exactly mergeable and indifferent to order.
//!
//! A [`Fold`] turns rows into a [`State`]; states of any grouping of the same rows merge to the same result, bit
//! for bit. Several aggregates share one state (SUM and AVG of a column, say) and differ in their [`Finish`].
//! Every result equals what DataFusion's accumulator of that name gives, except that sums of doubles are exact.

mod compile;
mod distinct;
pub(crate) mod generic;
mod min_max;
mod position;
mod sum;
pub(crate) mod value;
mod variance;

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;

use super::KernelError;
use super::spec::Argument;
pub(crate) use compile::{Finish, compile};
pub(crate) use distinct::Distinct;
pub(crate) use min_max::Extreme;
pub(crate) use position::{Position, nth as position_nth};
pub(crate) use sum::{FloatSum, WideSum};
use value::{Native, Value};
pub(crate) use variance::Moments;

/// How rows become a state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fold {
    pub kind: Kind,
    /// The type of the first argument; `Null` where there is none.
    pub arg_type: DataType,
    pub args: Vec<Argument>,
    pub filter: Option<usize>,
    /// Rows with a NULL argument don't count.
    pub skip_nulls: bool,
}

/// The kind of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Wide,
    Float,
    Moments,
    Min,
    Max,
    Distinct,
    First,
    Last,
}

impl Kind {
    pub fn empty(self) -> State {
        match self {
            Kind::Count => State::Count(0),
            Kind::Wide => State::Wide(WideSum::default()),
            Kind::Float => State::Float(FloatSum::default()),
            Kind::Moments => State::Moments(Moments::default()),
            Kind::Min => State::Extreme(Extreme::Min(None)),
            Kind::Max => State::Extreme(Extreme::Max(None)),
            Kind::Distinct => State::Distinct(Distinct::default()),
            Kind::First | Kind::Last => State::Position(None),
        }
    }
}

/// What a fold remembers of the rows it has seen.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Count(i64),
    Wide(WideSum),
    Float(FloatSum),
    Moments(Moments),
    Extreme(Extreme),
    Distinct(Distinct),
    Position(Option<Position>),
}

/// The order of rows in a timeline: event time, then partition, then offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub times: &'a [i64],
    pub partitions: Partitions<'a>,
    pub offsets: &'a [i64],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Partitions<'a> {
    One(i32),
    Each(&'a [i32]),
}

/// A fold's arguments in a set of rows.
#[derive(Debug)]
pub(crate) struct Input {
    pub args: Vec<ArrayRef>,
    /// The rows that count; all of them if there is none.
    pub mask: Option<BooleanBuffer>,
}

impl Fold {
    pub fn empty(&self) -> State {
        self.kind.empty()
    }

    pub fn input(&self, columns: &[ArrayRef], rows: usize) -> Result<Input, KernelError> {
        input(columns, rows, &self.args, self.filter, self.skip_nulls)
    }

    /// Whether it is the first or the last row of a range, whatever is in it.
    pub fn is_row(&self) -> bool {
        matches!(self.kind, Kind::First | Kind::Last) && self.filter.is_none() && !self.skip_nulls
    }

    /// Folds a range of rows into a state.
    pub fn update(&self, state: &mut State, input: &Input, order: Order<'_>, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mask = input.mask.as_ref();
        match (state, input.args.first()) {
            (state @ (State::Count(_) | State::Wide(_) | State::Float(_) | State::Moments(_)), _) => {
                self.accumulate(state, input, range);
            }
            (State::Extreme(extreme), Some(column)) => extreme.update(column, mask, range),
            (State::Distinct(distinct), Some(column)) => distinct.update(column, mask, range),
            (State::Position(position), Some(column)) => {
                let found = match self.kind {
                    Kind::First => position::first(mask, range),
                    _ => position::last(mask, range),
                };
                if let Some(row) = found {
                    let found = Position::at(column, order, row);
                    position::merge(position, found, self.kind == Kind::First);
                }
            }
            // A fold with an argument always gets one; see `compile`.
            (_, None) => {}
        }
    }

    /// Adds a range of rows to a count, a sum or moments.
    pub fn accumulate(&self, state: &mut State, input: &Input, range: Range<usize>) {
        let mask = input.mask.as_ref();
        match (state, input.args.first()) {
            (State::Count(count), _) => *count += selected(mask, range) as i64,
            (State::Wide(sum), Some(column)) => sum.update(column, mask, range),
            (State::Float(sum), Some(column)) => sum.update(column, mask, range),
            (State::Moments(moments), Some(column)) => moments.update(column, mask, range),
            _ => {}
        }
    }

    /// Takes rows back out of a count, a sum or moments that they were added to: it is exactly what it was without them.
    pub fn retract(&self, state: &mut State, input: &Input, range: Range<usize>) {
        let mask = input.mask.as_ref();
        match (state, input.args.first()) {
            (State::Count(count), _) => *count -= selected(mask, range) as i64,
            (State::Wide(sum), Some(column)) => sum.retract(column, mask, range),
            (State::Float(sum), Some(column)) => sum.retract(column, mask, range),
            (State::Moments(moments), Some(column)) => moments.retract(column, mask, range),
            _ => {}
        }
    }

    /// Merges a state of the same fold over other rows.
    pub fn merge(&self, state: &mut State, other: &State) {
        match (state, other) {
            (State::Count(count), State::Count(other)) => *count += other,
            (State::Wide(sum), State::Wide(other)) => sum.merge(other),
            (State::Float(sum), State::Float(other)) => sum.merge(other),
            (State::Moments(moments), State::Moments(other)) => moments.merge(other),
            (State::Extreme(extreme), State::Extreme(other)) => extreme.merge(other),
            (State::Distinct(distinct), State::Distinct(other)) => distinct.merge(other),
            (State::Position(position), State::Position(Some(other))) => {
                position::merge(position, other.clone(), self.kind == Kind::First);
            }
            // States are made by one kernel, so that their kinds agree.
            _ => {}
        }
    }
}

impl State {
    /// Adds a value that is not NULL to a sum or moments.
    pub fn add(&mut self, value: &Value) {
        match self {
            State::Wide(sum) => sum.add(value),
            State::Float(sum) => sum.add(f64::from_value(value)),
            State::Moments(moments) => moments.add(f64::from_value(value)),
            _ => {}
        }
    }

    /// Takes a value back that was added.
    pub fn remove(&mut self, value: &Value) {
        match self {
            State::Wide(sum) => sum.remove(value),
            State::Float(sum) => sum.remove(f64::from_value(value)),
            State::Moments(moments) => moments.remove(f64::from_value(value)),
            _ => {}
        }
    }

    /// Makes a count, a sum or moments those of no rows; what they have allocated they keep.
    pub fn clear(&mut self) {
        match self {
            State::Count(count) => *count = 0,
            State::Wide(sum) => *sum = WideSum::default(),
            State::Float(sum) => sum.clear(),
            State::Moments(moments) => moments.clear(),
            _ => {}
        }
    }

    /// The result, `None` for NULL.
    pub fn finish(&self, finish: &Finish) -> Result<Option<Value>, KernelError> {
        Ok(match (self, finish) {
            (State::Count(count), _) => Some(Value::Int(i128::from(*count))),
            (State::Wide(sum), finish) => sum.finish(finish)?,
            (State::Float(sum), finish) => sum.finish(finish),
            (State::Moments(moments), Finish::Variance { sample, root }) => {
                moments.double(*sample, *root).map(Value::from_f64)
            }
            (State::Moments(_), _) => None,
            (State::Extreme(extreme), _) => extreme.value().cloned(),
            (State::Distinct(distinct), finish) => distinct.finish(finish)?,
            (State::Position(position), _) => position.as_ref().and_then(|position| position.value.clone()),
        })
    }
}

impl Partitions<'_> {
    pub fn get(&self, row: usize) -> i32 {
        match self {
            Partitions::One(partition) => *partition,
            Partitions::Each(partitions) => partitions.get(row).copied().unwrap_or_default(),
        }
    }
}

/// The arguments of an aggregate, and which rows count: the filter is true, and (if asked) no argument is NULL.
pub(crate) fn input(
    columns: &[ArrayRef],
    rows: usize,
    args: &[Argument],
    filter: Option<usize>,
    skip_nulls: bool,
) -> Result<Input, KernelError> {
    let args = args.iter().map(|arg| match arg {
        Argument::Column(index) => {
            let missing = || KernelError::Rows(format!("column {index} is missing, there are {}", columns.len()));
            columns.get(*index).cloned().ok_or_else(missing)
        }
        Argument::Constant(value) => Ok(value.to_array_of_size(rows)?),
    });
    let args: Vec<ArrayRef> = args.collect::<Result<_, _>>()?;
    let mut nulls: Option<NullBuffer> = None;
    if skip_nulls {
        for arg in &args {
            nulls =
                NullBuffer::union(nulls.as_ref(), arg.logical_nulls().filter(|nulls| nulls.null_count() > 0).as_ref());
        }
    }
    let mut mask = nulls.map(|nulls| nulls.inner().clone());
    if let Some(filter) = filter.and_then(|index| columns.get(index)).and_then(|column| column.as_boolean_opt()) {
        let passes = match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        };
        mask = Some(match mask {
            Some(mask) => &mask & &passes,
            None => passes,
        });
    }
    Ok(Input { args, mask })
}

/// How many rows of a range count.
pub(crate) fn selected(mask: Option<&BooleanBuffer>, range: Range<usize>) -> usize {
    match mask {
        None => range.len(),
        Some(mask) => mask.slice(range.start, range.len()).count_set_bits(),
    }
}

/// Calls `each` with every row of a range that counts, in order.
#[inline]
pub(crate) fn for_each(mask: Option<&BooleanBuffer>, range: Range<usize>, mut each: impl FnMut(usize)) {
    match mask {
        None => range.for_each(each),
        Some(mask) => {
            let start = range.start;
            mask.slice(start, range.len()).set_indices().for_each(|row| each(start + row));
        }
    }
}
