//! Evaluating a timeline at instants.

use std::fmt;

use arrow::array::ArrayRef;

use super::KernelError;
use super::compile::{Kernel, Plan};
use super::fold::{Input, State, input};
use super::frame::Cover;
use super::results::Results;
use super::timeline::Timeline;

/// Whether a key's values at an instant are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// There is an event at or before the instant.
    Present,
    /// There is none: the values are what SQL gives on no rows.
    NotFound,
    /// What the values need has been trimmed: all of them are NULL.
    OutsideRetention,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Status::Present => "PRESENT",
            Status::NotFound => "NOT_FOUND",
            Status::OutsideRetention => "OUTSIDE_RETENTION",
        })
    }
}

/// One row per instant.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// A column per aggregate, of its output type. NULL under [`Status::OutsideRetention`], also where the
    /// aggregate itself is never NULL.
    pub columns: Vec<ArrayRef>,
    pub status: Vec<Status>,
    /// The newest event time at or before the instant, in microseconds, as far as it is still known.
    pub newest: Vec<Option<i64>>,
}

impl Kernel {
    /// Evaluates all aggregates at each instant (microseconds UTC, in any order).
    pub fn evaluate(&self, timeline: &Timeline, instants: &[i64]) -> Result<Evaluation, KernelError> {
        let inputs = self.folds.iter().map(|fold| fold.input(&timeline.columns, timeline.rows()));
        let inputs: Vec<Input> = inputs.collect::<Result<_, _>>()?;
        let plan_inputs = self
            .plans
            .iter()
            .map(|plan| plan_input(plan, &timeline.columns, timeline.rows()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut results: Vec<Results> = self.plans.iter().map(|plan| Results::new(plan, instants.len())).collect();
        let mut status = Vec::with_capacity(instants.len());
        let mut newest = Vec::with_capacity(instants.len());
        for t in instants {
            newest.push(timeline.newest_at(*t));
            let covers =
                self.spec.frames.iter().map(|frame| self.cover(timeline, frame, *t)).collect::<Option<Vec<Cover>>>();
            let before_all = timeline.oldest.is_none_or(|oldest| *t < oldest);
            match covers {
                Some(covers) => {
                    status.push(if before_all { Status::NotFound } else { Status::Present });
                    self.evaluate_at(timeline, &covers, &inputs, &plan_inputs, &mut results)?;
                }
                None => {
                    status.push(Status::OutsideRetention);
                    results.iter_mut().for_each(Results::push_null);
                }
            }
        }
        let outputs = self.plans.iter().zip(results).zip(&plan_inputs).zip(&self.spec.aggregates);
        let columns =
            outputs.map(|(((plan, results), input), aggregate)| results.finish(plan, input.as_ref(), aggregate));
        Ok(Evaluation { columns: columns.collect::<Result<_, KernelError>>()?, status, newest })
    }

    fn evaluate_at(
        &self,
        timeline: &Timeline,
        covers: &[Cover],
        inputs: &[Input],
        plan_inputs: &[Option<Input>],
        results: &mut [Results],
    ) -> Result<(), KernelError> {
        let cells =
            self.cells.iter().map(|cell| self.state(timeline, cell.fold, &covers[cell.frame], &inputs[cell.fold]));
        let cells: Vec<State> = cells.collect();
        for (((plan, input), aggregate), results) in
            self.plans.iter().zip(plan_inputs).zip(&self.spec.aggregates).zip(results)
        {
            match (plan, results) {
                (Plan::Typed { cell, finish, .. }, Results::Values(values)) => {
                    values.push(cells[*cell].finish(finish).map_err(|error| named(error, aggregate.output.name()))?);
                }
                (plan, results) => {
                    results.push_window(plan, input.as_ref(), |frame| covers[frame].rows.clone())?;
                }
            }
        }
        Ok(())
    }

    /// The state of a fold over what a frame covers: base, then tiles, then rows.
    fn state(&self, timeline: &Timeline, index: usize, cover: &Cover, input: &Input) -> State {
        let fold = &self.folds[index];
        let mut state = fold.empty();
        if cover.base
            && let (Some(base), Some(folds)) = (&timeline.base, &self.base)
            && let Some(place) = folds.iter().position(|fold| *fold == index)
        {
            fold.merge(&mut state, &base[place]);
        }
        for tile in &timeline.tiles[cover.tiles.clone()] {
            if tile.max <= cover.until {
                fold.merge(&mut state, &tile.states[index]);
            }
        }
        fold.update(&mut state, input, timeline.order(), cover.rows.clone());
        state
    }
}

impl Timeline {
    /// The newest event time at or before an instant; not known where later events have been trimmed. Of a tile
    /// that the instant cuts, the first event is known.
    fn newest_at(&self, t: i64) -> Option<i64> {
        if self.complete_after.is_some_and(|complete_after| t < complete_after) {
            return None;
        }
        let times = self.times.values();
        let row = times.partition_point(|time| *time <= t).checked_sub(1).map(|row| times[row]);
        let tiles = self.tiles.iter().filter(|tile| tile.min <= t);
        let tile = tiles.map(|tile| if tile.max <= t { tile.max } else { tile.min }).max();
        row.max(tile).max(self.complete_after)
    }
}

/// What an aggregate without a typed fold reads of some rows.
pub(super) fn plan_input(plan: &Plan, columns: &[ArrayRef], rows: usize) -> Result<Option<Input>, KernelError> {
    Ok(match plan {
        Plan::Typed { .. } => None,
        Plan::Nth { arg, filter, ignore_nulls, .. } => {
            Some(input(columns, rows, std::slice::from_ref(arg), *filter, *ignore_nulls)?)
        }
        Plan::Generic { args, filter, .. } => Some(input(columns, rows, args, *filter, false)?),
    })
}

/// An overflow names the column that it happened in.
pub(super) fn named(error: KernelError, name: &str) -> KernelError {
    match error {
        KernelError::Overflow { message, .. } => KernelError::Overflow { aggregate: name.to_owned(), message },
        other => other,
    }
}
