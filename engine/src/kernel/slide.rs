//! A fold over a range of rows that moves on: what leaves is taken out, what enters is folded in.
//!
//! Guarantee: after any moves a slider gives what a fold of the range from nothing gives, bit for bit. Sums, counts and
//! moments are exact, so that taking out leaves no trace; the least and the greatest are rows of a queue; distinct values are
//! counted; the first and the last are rows. Most sums of doubles need no slider: see [`super::prefix`].

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray};

use super::KernelError;
use super::fold::value::{Native, Value, ValueKind, dispatch_bytes, dispatch_primitive, value_at, value_kind};
use super::fold::{Finish, FloatSum, Fold, Input, Kind, State, for_each};
use super::prefix::Prefix;

/// One fold over one frame, on its way through timelines. Both ends of the range only move on within a timeline.
#[derive(Debug)]
pub(super) struct Slider {
    range: Range<usize>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    State(State),
    /// The rows that may still be the least (or the greatest), best first.
    Best(VecDeque<u32>),
    Distinct(Distinct),
    Row(Option<u32>),
}

/// How often each value is in the range, and the folds of those that are.
#[derive(Debug)]
struct Distinct {
    counts: Vec<u32>,
    distinct: u64,
    values: Vec<(Kind, State)>,
}

/// What the sliders of one fold share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// For DISTINCT: the number of each row's value, from 0, and how many there are.
    codes: Vec<u32>,
    distinct: usize,
    /// For sums of doubles, where they can be had so.
    pub prefix: Option<Prefix>,
}

impl Slider {
    /// `finishes` are those that will be asked for.
    pub fn new<'a>(fold: &Fold, shared: &Shared, finishes: impl Iterator<Item = &'a Finish>) -> Self {
        let held = match fold.kind {
            Kind::Min | Kind::Max => Held::Best(VecDeque::new()),
            Kind::Distinct => Held::Distinct(Distinct::new(shared, finishes)),
            Kind::First | Kind::Last => Held::Row(None),
            _ => Held::State(fold.empty()),
        };
        Slider { range: 0..0, held }
    }

    pub fn slide(&mut self, fold: &Fold, input: &Input, shared: &Shared, to: Range<usize>) {
        if self.range == to {
            return;
        }
        let from = std::mem::replace(&mut self.range, to.clone());
        // Where little stays it is less work to begin anew.
        let apart = to.start >= from.end || to.start < from.start || to.end < from.end;
        let anew = apart || (to.start - from.start) + (to.end - from.end) > to.len();
        let (leaves, enters) = if anew { (from.clone(), to.clone()) } else { (from.start..to.start, from.end..to.end) };
        match &mut self.held {
            Held::State(state) => {
                if anew {
                    state.clear();
                } else {
                    fold.retract(state, input, leaves);
                }
                fold.accumulate(state, input, enters);
            }
            Held::Best(rows) => {
                if anew {
                    rows.clear();
                }
                while rows.front().is_some_and(|row| (*row as usize) < to.start) {
                    rows.pop_front();
                }
                enter(rows, input, fold.kind == Kind::Min, enters);
            }
            Held::Distinct(distinct) => {
                distinct.change(input, shared, leaves, false);
                distinct.change(input, shared, enters, true);
            }
            Held::Row(row) => {
                let before = row.take().filter(|_| !anew);
                let held = before.map(|row| row as usize).filter(|row| to.contains(row));
                let mask = input.mask.as_ref();
                let counts = |row: &usize| mask.is_none_or(|mask| mask.value(*row));
                *row = match (fold.kind, held) {
                    (Kind::First, Some(held)) => Some(held),
                    // The next one behind the row that left; or, where none counted, among those that enter.
                    (Kind::First, None) => {
                        let from = before.map_or(enters.start, |row| row as usize + 1);
                        (from.max(to.start)..to.end).find(counts)
                    }
                    (_, held) => enters.rev().find(counts).or(held),
                }
                .map(|row| row as u32);
            }
        }
    }

    /// The row that holds the result.
    pub fn row(&self) -> Option<u32> {
        match &self.held {
            Held::Best(rows) => rows.front().copied(),
            Held::Row(row) => *row,
            _ => None,
        }
    }

    /// A count.
    pub fn count(&self) -> Option<i64> {
        match &self.held {
            Held::State(State::Count(count)) => Some(*count),
            Held::Distinct(held) => i64::try_from(held.distinct).ok(),
            _ => None,
        }
    }

    /// A sum or an average of doubles, or a variance.
    pub fn double(&self, finish: &Finish) -> Option<f64> {
        match (&self.held, finish) {
            (Held::State(State::Moments(moments)), Finish::Variance { sample, root }) => moments.double(*sample, *root),
            (Held::State(State::Float(held)), finish) => FloatSum::double(held.sum.value(), held.count, finish),
            _ => None,
        }
    }

    pub fn finish(&self, finish: &Finish) -> Result<Option<Value>, KernelError> {
        match (&self.held, finish) {
            (Held::State(state), finish) => state.finish(finish),
            (Held::Distinct(held), Finish::Distinct(kind, inner)) => {
                let values = held.values.iter().find(|(held, _)| held == kind);
                values.map_or(Ok(None), |(_, values)| values.finish(inner))
            }
            _ => Ok(None),
        }
    }
}

/// Lets rows into a queue: whatever they beat can't be the best again, since it leaves before them.
fn enter(queue: &mut VecDeque<u32>, input: &Input, min: bool, rows: Range<usize>) {
    let Some(column) = input.args.first() else { return };
    let mask = input.mask.as_ref();
    macro_rules! push {
        ($at:expr, $less:expr) => {{
            for_each(mask, rows, |row| {
                let value = $at(row);
                while let Some(last) = queue.back() {
                    let last = $at(*last as usize);
                    if if min { $less(&last, &value) } else { $less(&value, &last) } {
                        break;
                    }
                    queue.pop_back();
                }
                queue.push_back(row as u32);
            })
        }};
    }
    macro_rules! primitive {
        ($type:ty) => {{
            let values = column.as_primitive::<$type>().values();
            push!(|row: usize| values[row], |a: &<$type as ArrowPrimitiveType>::Native, b: &_| a.is_lt(*b))
        }};
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let array = $array;
            push!(|row: usize| -> &[u8] { array.value(row).as_ref() }, |a: &&[u8], b: &&[u8]| a < b)
        }};
    }
    dispatch_primitive!(column.data_type(), primitive, {
        dispatch_bytes!(column, bytes, push!(|row| value_at(column, row), |a: &Option<Value>, b: &Option<Value>| a < b))
    });
}

impl Distinct {
    fn new<'a>(shared: &Shared, finishes: impl Iterator<Item = &'a Finish>) -> Self {
        let mut values: Vec<(Kind, State)> = vec![];
        for finish in finishes {
            if let Finish::Distinct(kind, _) = finish
                && values.iter().all(|(held, _)| held != kind)
            {
                values.push((*kind, kind.empty()));
            }
        }
        Distinct { counts: vec![0; shared.distinct], distinct: 0, values }
    }

    fn change(&mut self, input: &Input, shared: &Shared, rows: Range<usize>, enters: bool) {
        let Some(column) = input.args.first() else { return };
        for_each(input.mask.as_ref(), rows, |row| {
            let count = &mut self.counts[shared.codes[row] as usize];
            let changes = if enters { *count == 0 } else { *count == 1 };
            if enters {
                *count += 1;
            } else {
                *count -= 1;
            }
            if !changes {
                return;
            }
            if enters {
                self.distinct += 1;
            } else {
                self.distinct -= 1;
            }
            if self.values.is_empty() {
                return;
            }
            if let Some(value) = value_at(column, row) {
                let values = self.values.iter_mut();
                values.for_each(|(_, state)| if enters { state.add(&value) } else { state.remove(&value) });
            }
        });
    }
}

impl Shared {
    pub fn new(fold: &Fold, input: &Input) -> Self {
        match (fold.kind, input.args.first()) {
            (Kind::Distinct, Some(column)) => codes(column, input),
            (Kind::Float | Kind::Moments, _) => {
                Shared { prefix: Prefix::new(input, fold.kind == Kind::Moments), ..Shared::default() }
            }
            _ => Shared::default(),
        }
    }
}

/// Numbers the values of a column. Equal means the same as in [`super::fold::Distinct`].
fn codes(column: &ArrayRef, input: &Input) -> Shared {
    let mask = input.mask.as_ref();
    let mut codes = vec![0; column.len()];
    macro_rules! number {
        ($key:ty, $at:expr) => {{
            // A table that grows is filled anew each time.
            let mut known: HashMap<$key, u32, RandomState> =
                HashMap::with_capacity_and_hasher(column.len() / 4, RandomState::default());
            for_each(mask, 0..column.len(), |row| {
                let next = known.len() as u32;
                codes[row] = *known.entry($at(row)).or_insert(next);
            });
            known.len()
        }};
    }
    macro_rules! primitive {
        ($type:ty) => {{
            let values = column.as_primitive::<$type>().values();
            match (value_kind(column.data_type()), size_of::<<$type as ArrowPrimitiveType>::Native>()) {
                // Values that differ differ in these bits.
                (Some(ValueKind::Int), ..=8) => number!(u64, |row: usize| values[row].to_value().int() as u64),
                (Some(ValueKind::Int), _) => number!(i128, |row: usize| values[row].to_value().int()),
                _ => number!(Value, |row: usize| values[row].to_value()),
            }
        }};
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let array = $array;
            number!(&[u8], |row| array.value(row).as_ref())
        }};
    }
    let distinct = dispatch_primitive!(column.data_type(), primitive, {
        dispatch_bytes!(column, bytes, number!(Option<Value>, |row| value_at(column, row)))
    });
    Shared { codes, distinct, prefix: None }
}
