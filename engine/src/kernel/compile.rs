//! A spec, compiled: which folds it needs, what each aggregate reads, and how long rows are kept.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, FieldRef};

use super::KernelError;
use super::encoding::column::check_type;
use super::fold::generic::Generic;
use super::fold::value::value_kind;
use super::fold::{self, Finish, Fold};
use super::spec::{Aggregate, Argument, Frame, Function, TimelineSpec};

/// A compiled [`TimelineSpec`]: folds events into pieces, merges pieces, evaluates timelines.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(super) spec: TimelineSpec,
    /// Each distinct fold once, however many aggregates and frames use it. A tile has a state for each.
    pub(super) folds: Vec<Fold>,
    /// The folds (by index) that a base state holds: those of unbounded frames. None where there is no base.
    pub(super) base: Option<Vec<usize>>,
    /// Each distinct (fold, frame) once.
    pub(super) cells: Vec<Cell>,
    pub(super) plans: Vec<Plan>,
    /// The columns whose values folds look at on their way. A first or last value is a row: its column is only read at the end.
    pub(super) looked_at: BTreeSet<usize>,
    /// Rows older than the newest by more than this are trimmed, in microseconds; `None` keeps all rows.
    pub(super) retention: Option<i64>,
    /// How many of the latest rows are kept however old they are.
    pub(super) keep_rows: usize,
    /// How long before the newest event a tile may still be cut by a read at or after it, in microseconds.
    pub(super) open: i64,
    /// Whether rows of its columns can be appended as bytes.
    pub(super) appends: bool,
}

/// One fold over one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub fold: usize,
    pub frame: usize,
}

/// How one aggregate is computed.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    Typed {
        cell: usize,
        finish: Finish,
        result: DataType,
    },
    /// The n-th row of the frame, from 1, or from the end when negative.
    Nth {
        frame: usize,
        arg: Argument,
        filter: Option<usize>,
        ignore_nulls: bool,
        n: i64,
    },
    Generic {
        frame: usize,
        args: Vec<Argument>,
        filter: Option<usize>,
        generic: Box<Generic>,
    },
}

impl Plan {
    /// The frame whose rows it goes through each time.
    pub(super) fn window(&self) -> Option<usize> {
        match self {
            Plan::Typed { .. } => None,
            Plan::Nth { frame, .. } | Plan::Generic { frame, .. } => Some(*frame),
        }
    }
}

impl Kernel {
    /// Compiles a spec. Errors name what no timeline can hold or compute.
    pub fn new(spec: TimelineSpec) -> Result<Self, KernelError> {
        check(&spec)?;
        let mut kernel = Kernel {
            folds: Vec::new(),
            base: None,
            cells: Vec::new(),
            plans: Vec::new(),
            looked_at: BTreeSet::new(),
            retention: Some(
                spec.frames
                    .iter()
                    .map(longest)
                    .max()
                    .unwrap_or(0)
                    .saturating_add(spec.lateness)
                    .saturating_add(spec.ahead),
            ),
            keep_rows: spec.frames.iter().map(rows_needed).max().unwrap_or(0),
            open: spec.frames.iter().map(end_micros).max().unwrap_or(0).saturating_add(spec.ahead),
            appends: false,
            spec,
        };
        kernel.appends = kernel.can_append();
        for aggregate in &kernel.spec.aggregates.clone() {
            let plan = kernel.plan(aggregate)?;
            kernel.plans.push(plan);
        }
        kernel.looked_at = kernel.find_looked_at();
        kernel.keep_what_is_unbounded()?;
        Ok(kernel)
    }

    pub fn spec(&self) -> &TimelineSpec {
        &self.spec
    }

    /// How long after a key's newest event its timeline is as good as none, in microseconds: reads at now, and those as far
    /// back as `lateness` and two minutes more, find its frames empty. None if frames reach back further than any time.
    pub fn idle_after(&self) -> Option<i64> {
        let retention = self.retention.filter(|_| self.keep_rows == 0 && self.base.is_none())?;
        Some(
            retention
                .saturating_add(self.spec.ahead)
                .saturating_add(self.spec.tile.unwrap_or(0))
                .saturating_add(120_000_000),
        )
    }

    /// How long before an instant an event may lie and still matter to it, in microseconds; `None` for any time.
    pub fn reach(&self) -> Option<i64> {
        let reaches = self.spec.frames.iter().map(|frame| match frame {
            Frame::Range { start: Some(start), .. } => Some(start.longest_micros()),
            _ => None,
        });
        let longest = reaches.collect::<Option<Vec<i64>>>()?.into_iter().max().unwrap_or(0);
        Some(longest.saturating_add(self.spec.tile.unwrap_or(0)))
    }

    /// Whether an aggregate over columns of these types has a typed fold: only those may stand in a tiled view.
    pub fn is_typed(function: &Function, arg_types: &[DataType], distinct: bool) -> bool {
        fold::compile(function, arg_types, distinct, false).is_some()
    }

    /// The fields of an evaluation's columns, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &FieldRef> {
        self.spec.aggregates.iter().map(|aggregate| &aggregate.output)
    }

    fn plan(&mut self, aggregate: &Aggregate) -> Result<Plan, KernelError> {
        let fields: Vec<Field> = aggregate.args.iter().map(|arg| self.field(arg)).collect();
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let frame = aggregate.frame;
        if let Some(compiled) = fold::compile(&aggregate.function, &types, aggregate.distinct, aggregate.ignore_nulls) {
            let fold = Fold {
                kind: compiled.kind,
                arg_type: types.first().cloned().unwrap_or(DataType::Null),
                args: aggregate.args.clone(),
                filter: aggregate.filter,
                skip_nulls: compiled.skip_nulls,
            };
            let fold = position_or_push(&mut self.folds, fold);
            let cell = position_or_push(&mut self.cells, Cell { fold, frame });
            return Ok(Plan::Typed { cell, finish: compiled.finish, result: compiled.result });
        }
        if self.spec.tile.is_some() {
            return Err(KernelError::Spec(format!(
                "{} has no mergeable partial state, so it can't be in a tiled view (hint: take `tile` out, or use COUNT, SUM, AVG, MIN, \
                 MAX, VAR, STDDEV, COUNT(DISTINCT), FIRST_VALUE or LAST_VALUE)",
                aggregate.output.name()
            )));
        }
        let nth = match &aggregate.function {
            Function::FirstValue => 1,
            Function::LastValue => -1,
            Function::NthValue(n) => *n,
            Function::Udaf(function) => {
                let Aggregate { args, filter, distinct, ignore_nulls, output, .. } = aggregate;
                let generic = Box::new(Generic::new(function, args, fields, *distinct, *ignore_nulls, output)?);
                return Ok(Plan::Generic { frame, args: args.clone(), filter: *filter, generic });
            }
        };
        let [arg] = aggregate.args.as_slice() else {
            return Err(KernelError::Spec(format!(
                "{} takes one column, got {}",
                aggregate.output.name(),
                aggregate.args.len()
            )));
        };
        Ok(Plan::Nth {
            frame,
            arg: arg.clone(),
            filter: aggregate.filter,
            ignore_nulls: aggregate.ignore_nulls,
            n: nth,
        })
    }

    fn find_looked_at(&self) -> BTreeSet<usize> {
        let column = |arg: &Argument| match arg {
            Argument::Column(index) => Some(*index),
            Argument::Constant(_) => None,
        };
        let mut columns = BTreeSet::new();
        for fold in self.folds.iter().filter(|fold| !fold.is_row()) {
            columns.extend(fold.args.iter().filter_map(column).chain(fold.filter));
        }
        for plan in &self.plans {
            match plan {
                Plan::Typed { .. } => {}
                Plan::Nth { arg, filter, .. } => columns.extend(column(arg).into_iter().chain(*filter)),
                Plan::Generic { args, filter, .. } => columns.extend(args.iter().filter_map(column).chain(*filter)),
            }
        }
        columns
    }

    /// The field of an argument, which [`check`] has found to be there.
    fn field(&self, arg: &Argument) -> Field {
        match arg {
            Argument::Column(index) => self.spec.columns[*index].clone(),
            Argument::Constant(value) => Field::new("constant", value.data_type(), value.is_null()),
        }
    }

    /// Unbounded frames need a base state, or all rows where an aggregate can't be folded.
    fn keep_what_is_unbounded(&mut self) -> Result<(), KernelError> {
        let unbounded = |frame: &usize| self.spec.frames.get(*frame).is_some_and(is_unbounded);
        let mut based = Vec::new();
        let mut unfoldable = false;
        for plan in &self.plans {
            match plan {
                Plan::Typed { cell, .. } if unbounded(&self.cells[*cell].frame) => {
                    position_or_push(&mut based, self.cells[*cell].fold);
                }
                Plan::Nth { frame, .. } | Plan::Generic { frame, .. } => unfoldable |= unbounded(frame),
                Plan::Typed { .. } => {}
            }
        }
        if unfoldable {
            self.retention = None;
        } else if !based.is_empty() {
            self.base = Some(based);
        }
        Ok(())
    }
}

fn check(spec: &TimelineSpec) -> Result<(), KernelError> {
    let error = |message: String| Err(KernelError::Spec(message));
    for field in &spec.columns {
        check_type(field)?;
    }
    if spec.lateness < 0 || spec.ahead < 0 {
        let (lateness, ahead) = (spec.lateness, spec.ahead);
        return error(format!("lateness is {lateness} and ahead {ahead} microseconds, expected 0 or more"));
    }
    if let Some(id) = &spec.event_id
        && value_kind(id.data_type()).is_none()
    {
        return error(format!(
            "event_id {:?} is {}: expected a string, a number or an instant",
            id.name(),
            id.data_type()
        ));
    }
    if let Some(tile) = spec.tile {
        if tile <= 0 {
            return error(format!("tile is {tile} microseconds, expected more than 0"));
        }
        if spec.frames.iter().any(|frame| matches!(frame, Frame::Rows { .. })) {
            return error(
                "a tiled view can't have a ROWS frame: a tile keeps no rows (hint: take `tile` out)".to_owned(),
            );
        }
    }
    for aggregate in &spec.aggregates {
        let name = aggregate.output.name();
        if aggregate.frame >= spec.frames.len() {
            return error(format!("{name} names frame {}, the spec has {}", aggregate.frame, spec.frames.len()));
        }
        for arg in &aggregate.args {
            if let Argument::Column(index) = arg
                && *index >= spec.columns.len()
            {
                return error(format!("{name} names column {index}, the spec has {}", spec.columns.len()));
            }
        }
        if let Some(filter) = aggregate.filter
            && spec.columns.get(filter).map(Field::data_type) != Some(&DataType::Boolean)
        {
            return error(format!("{name} filters by column {filter}, which isn't a boolean column of the spec"));
        }
    }
    Ok(())
}

/// How far back from a read a frame reaches, where it reaches a finite way; the end counts too, since what lies
/// between it and the read must still be told apart from what lies before.
fn longest(frame: &Frame) -> i64 {
    match frame {
        Frame::Range { start: Some(start), end } => start.longest_micros().max(end.longest_micros()),
        Frame::Range { start: None, end } => end.longest_micros(),
        Frame::Rows { .. } => 0,
    }
}

fn rows_needed(frame: &Frame) -> usize {
    match frame {
        Frame::Range { .. } => 0,
        Frame::Rows { start: Some(start), .. } => usize::try_from(*start).unwrap_or(usize::MAX).saturating_add(1),
        Frame::Rows { start: None, end } => usize::try_from(*end).unwrap_or(usize::MAX),
    }
}

fn end_micros(frame: &Frame) -> i64 {
    match frame {
        Frame::Range { end, .. } => end.longest_micros(),
        Frame::Rows { .. } => 0,
    }
}

pub(super) fn is_unbounded(frame: &Frame) -> bool {
    matches!(frame, Frame::Range { start: None, .. } | Frame::Rows { start: None, .. })
}

fn position_or_push<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|held| *held == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}
