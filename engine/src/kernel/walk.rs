//! Evaluating many keys' timelines at many instants: what the point-in-time operator does.
//!
//! Guarantees: the same bits as [`Kernel::evaluate`] of each key's timeline at each instant. Both fold the rows that a frame
//! covers into states that are exact, and finish those in the same way; a walk only gets from one instant's state to the
//! next one's by what enters and what leaves. So its cost grows with events and instants, not with their product, however
//! long a window is; only aggregates that have no typed fold go through a window's rows each time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder};

use super::KernelError;
use super::compile::{Cell, Kernel, Plan};
use super::evaluate::{named, plan_input};
use super::fold::{Finish, Input, Kind};
use super::frame::gallop;
use super::prefix::Prefix;
use super::results::Results;
use super::slide::{Shared, Slider};
use super::spec::Argument;
use super::timelines::Timelines;

/// An instant to evaluate a key at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Whose timeline; one that isn't there is empty.
    pub key: u32,
    /// Microseconds UTC.
    pub at: i64,
}

/// Timelines made ready to be asked.
#[derive(Debug)]
pub struct Walk {
    kernel: Arc<Kernel>,
    timelines: Timelines,
    /// Parallel to the kernel's folds.
    folds: Vec<Walked>,
    /// Parallel to the kernel's plans.
    plans: Vec<Option<Input>>,
}

/// What a fold goes through.
#[derive(Debug)]
struct Walked {
    input: Input,
    shared: Shared,
    /// Its column isn't in the timelines' order.
    as_it_came: bool,
}

/// Why questions have no answer, and the first of them where it is known.
#[derive(Debug)]
pub struct WalkError {
    pub question: Option<usize>,
    pub source: KernelError,
}

impl Kernel {
    /// Bytes that a row takes in a walk beside its columns, at the most.
    pub fn walk_bytes(&self) -> usize {
        let fold = |kind| match kind {
            Kind::Float | Kind::Moments => Prefix::bytes(kind == Kind::Moments),
            Kind::Distinct => size_of::<u32>(),
            _ => 0,
        };
        self.folds.iter().map(|of| fold(of.kind)).sum()
    }

    /// Makes timelines ready to be asked.
    pub fn walk(self: &Arc<Self>, timelines: Timelines) -> Result<Walk, KernelError> {
        let (columns, rows) = (timelines.columns(), timelines.times().len());
        let folds = self.folds.iter().map(|fold| {
            let input = fold.input(columns, rows)?;
            let shared = Shared::new(fold, &input);
            let came = |arg: &Argument| matches!(arg, Argument::Column(column) if !self.looked_at.contains(column));
            Ok(Walked { input, shared, as_it_came: fold.args.iter().any(came) })
        });
        let folds = folds.collect::<Result<_, KernelError>>()?;
        let plans = self.plans.iter().map(|plan| plan_input(plan, columns, rows)).collect::<Result<_, _>>()?;
        Ok(Walk { kernel: self.clone(), timelines, folds, plans })
    }
}

impl Walk {
    /// A column for each aggregate, a row for each question. Those of a key stand together, ascending by instant.
    pub fn answer(&self, questions: &[Question]) -> Result<Vec<ArrayRef>, WalkError> {
        let covers = self.covers(questions);
        let cover = |frame: usize| covers.get(frame).map(Vec::as_slice).unwrap_or_default();
        let mut results: Vec<Results> = self.plans().map(|(plan, _)| self.results(plan, questions.len())).collect();
        // Of each plan, where it failed first.
        let mut failures: Vec<(usize, usize, KernelError)> = vec![];
        // One after the other through all questions: each has its column and its state at hand.
        for (index, cell) in self.kernel.cells.iter().enumerate() {
            let results = self.kernel.plans.iter().zip(&mut results).enumerate();
            let mut of_cell: Vec<_> = results
                .filter_map(|(place, (plan, results))| match plan {
                    Plan::Typed { cell, finish, .. } if *cell == index => Some((place, finish, results)),
                    _ => None,
                })
                .collect();
            failures.extend(self.slide(*cell, cover(cell.frame), &mut of_cell).err());
        }
        for (place, ((plan, input), results)) in self.plans().zip(&mut results).enumerate() {
            let Some(frame) = plan.window() else { continue };
            for (question, rows) in cover(frame).iter().enumerate() {
                if let Err(error) = results.push_window(plan, input, |_| range(rows)) {
                    failures.push((question, place, error));
                    break;
                }
            }
        }
        let aggregates = &self.kernel.spec.aggregates;
        if let Some((question, place, error)) =
            failures.into_iter().min_by_key(|(question, place, _)| (*question, *place))
        {
            let source = match aggregates.get(place) {
                Some(aggregate) => named(error, aggregate.output.name()),
                None => error,
            };
            return Err(WalkError { question: Some(question), source });
        }
        let outputs = self.plans().zip(results).zip(aggregates);
        let columns = outputs.map(|(((plan, input), results), aggregate)| match plan {
            Plan::Typed { cell, .. } => results.finish(plan, Some(&self.fold(*cell).input), aggregate),
            _ => results.finish(plan, input, aggregate),
        });
        columns.collect::<Result<_, KernelError>>().map_err(|source| WalkError { question: None, source })
    }

    /// For each frame, the rows that it covers at each question.
    fn covers(&self, questions: &[Question]) -> Vec<Vec<Range<u32>>> {
        let frames = &self.kernel.spec.frames;
        let mut covers: Vec<Vec<Range<u32>>> = frames.iter().map(|_| Vec::with_capacity(questions.len())).collect();
        let mut last: Vec<Range<usize>> = vec![0..0; frames.len()];
        let (mut of, mut rows, mut seen) = (None, 0..0, 0);
        for question in questions {
            if of != Some(question.key) {
                of = Some(question.key);
                rows = self.timelines.rows(question.key);
                seen = 0;
                last.fill(0..0);
            }
            let times = &self.timelines.times()[rows.clone()];
            seen = gallop(times, seen, |time| time <= question.at);
            for ((frame, last), covers) in frames.iter().zip(&mut last).zip(&mut covers) {
                *last = frame.rows(self.kernel.spec.tile, times, seen, question.at, last.clone());
                covers.push((rows.start + last.start) as u32..(rows.start + last.end) as u32);
            }
        }
        covers
    }

    /// One fold over one frame, and what is made of it; or the question and the plan that fail first.
    fn slide(
        &self,
        cell: Cell,
        covers: &[Range<u32>],
        plans: &mut [(usize, &Finish, &mut Results)],
    ) -> Result<(), (usize, usize, KernelError)> {
        let (fold, Walked { input, shared, as_it_came }) = (&self.kernel.folds[cell.fold], &self.folds[cell.fold]);
        if let Some(prefix) = &shared.prefix {
            for (_, finish, results) in plans {
                let Results::Doubles(doubles) = results else { continue };
                covers.iter().for_each(|rows| doubles.append_option(prefix.double(range(rows), finish)));
            }
            return Ok(());
        }
        let mut slider = Slider::new(fold, shared, plans.iter().map(|(_, finish, _)| *finish));
        let came = |row: u32| if *as_it_came { self.timelines.order()[row as usize] } else { row };
        for (question, rows) in covers.iter().enumerate() {
            slider.slide(fold, input, shared, range(rows));
            for (place, finish, results) in plans.iter_mut() {
                match results {
                    Results::Counts(counts) => counts.append_option(slider.count()),
                    Results::Doubles(doubles) => doubles.append_option(slider.double(finish)),
                    Results::Rows(rows) => rows.push(slider.row().map(came)),
                    Results::Values(values) => {
                        values.push(slider.finish(finish).map_err(|error| (question, *place, error))?);
                    }
                    results @ Results::Scalars(_) => results.push_null(),
                }
            }
        }
        Ok(())
    }

    fn plans(&self) -> impl Iterator<Item = (&Plan, Option<&Input>)> {
        self.kernel.plans.iter().zip(self.plans.iter().map(Option::as_ref))
    }

    /// As they come: counts, doubles, and rows of a column, which the least, the greatest, the first and the last are.
    fn results(&self, plan: &Plan, questions: usize) -> Results {
        let Plan::Typed { cell, finish, .. } = plan else { return Results::new(plan, questions) };
        match (self.kernel.folds[self.kernel.cells[*cell].fold].kind, finish) {
            (Kind::Min | Kind::Max | Kind::First | Kind::Last, _) => Results::Rows(Vec::with_capacity(questions)),
            (Kind::Count, _) | (Kind::Distinct, Finish::DistinctCount) => {
                Results::Counts(Int64Builder::with_capacity(questions))
            }
            (Kind::Float | Kind::Moments, _) => Results::Doubles(Float64Builder::with_capacity(questions)),
            _ => Results::new(plan, questions),
        }
    }

    fn fold(&self, cell: usize) -> &Walked {
        &self.folds[self.kernel.cells[cell].fold]
    }
}

fn range(rows: &Range<u32>) -> Range<usize> {
    rows.start as usize..rows.end as usize
}
