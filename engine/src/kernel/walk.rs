//! Evaluating many keys' timelines at many instants: what the point-in-time operator does.
//!
//! Guarantees: the same bits as [`Kernel::evaluate`] of each key's timeline at each instant. Both fold the rows that a frame
//! covers into states that are exact, and finish those in the same way; a walk only gets from one instant's state to the
//! next one's by what enters and what leaves. So its cost grows with events and instants, not with their product, however
//! long a window is; only aggregates that have no typed fold go through a window's rows each time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;

use super::KernelError;
use super::compile::{Kernel, Plan};
use super::evaluate::{named, plan_input};
use super::fold::{Input, Kind};
use super::frame::gallop;
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
        let mut results: Vec<Results> = self.plans().map(|(plan, _)| self.results(plan, questions.len())).collect();
        let mut sliders: Vec<Slider> = (0..self.kernel.cells.len()).map(|cell| self.slider(cell)).collect();
        let mut covers: Vec<Range<usize>> = vec![0..0; self.kernel.spec.frames.len()];
        let (mut of, mut rows, mut seen) = (None, 0..0, 0);
        for (place, question) in questions.iter().enumerate() {
            if of != Some(question.key) {
                of = Some(question.key);
                rows = self.timelines.rows(question.key);
                seen = 0;
                covers.fill(0..0);
            }
            let failed = |source| WalkError { question: Some(place), source };
            let times = &self.timelines.times()[rows.clone()];
            seen = gallop(times, seen, |time| time <= question.at);
            for (cover, frame) in covers.iter_mut().zip(&self.kernel.spec.frames) {
                *cover = frame.rows(self.kernel.spec.tile, times, seen, question.at, cover.clone());
            }
            let covered = |frame: usize| rows.start + covers[frame].start..rows.start + covers[frame].end;
            for (slider, cell) in sliders.iter_mut().zip(&self.kernel.cells) {
                let Walked { input, shared, .. } = &self.folds[cell.fold];
                slider.slide(&self.kernel.folds[cell.fold], input, shared, covered(cell.frame));
            }
            for (((plan, input), results), aggregate) in
                self.plans().zip(&mut results).zip(&self.kernel.spec.aggregates)
            {
                self.answer_one(plan, input, &sliders, &covered, results)
                    .map_err(|error| failed(named(error, aggregate.output.name())))?;
            }
        }
        let outputs = self.plans().zip(results).zip(&self.kernel.spec.aggregates);
        let columns = outputs.map(|(((plan, input), results), aggregate)| match plan {
            Plan::Typed { cell, .. } => results.finish(plan, Some(&self.fold(*cell).input), aggregate),
            _ => results.finish(plan, input, aggregate),
        });
        columns.collect::<Result<_, KernelError>>().map_err(|source| WalkError { question: None, source })
    }

    fn slider(&self, cell: usize) -> Slider {
        let finishes = self.kernel.plans.iter().filter_map(|plan| match plan {
            Plan::Typed { cell: of, finish, .. } if *of == cell => Some(finish),
            _ => None,
        });
        let fold = self.kernel.cells[cell].fold;
        Slider::new(&self.kernel.folds[fold], &self.folds[fold].shared, finishes)
    }

    fn plans(&self) -> impl Iterator<Item = (&Plan, Option<&Input>)> {
        self.kernel.plans.iter().zip(self.plans.iter().map(Option::as_ref))
    }

    fn answer_one(
        &self,
        plan: &Plan,
        input: Option<&Input>,
        sliders: &[Slider],
        covered: &impl Fn(usize) -> Range<usize>,
        results: &mut Results,
    ) -> Result<(), KernelError> {
        match (plan, results) {
            (Plan::Typed { cell, .. }, Results::Rows(rows)) => {
                let row = sliders[*cell].row();
                let came = |row: u32| self.timelines.order()[row as usize];
                rows.push(if self.fold(*cell).as_it_came { row.map(came) } else { row });
            }
            (Plan::Typed { cell, finish, .. }, Results::Values(values)) => {
                values.push(sliders[*cell].finish(finish)?);
            }
            (plan, results) => results.push_window(plan, input, covered)?,
        }
        Ok(())
    }

    /// The least, the greatest, the first and the last are rows of their column.
    fn results(&self, plan: &Plan, questions: usize) -> Results {
        let rows = [Kind::Min, Kind::Max, Kind::First, Kind::Last];
        match plan {
            Plan::Typed { cell, .. } if rows.contains(&self.kernel.folds[self.kernel.cells[*cell].fold].kind) => {
                Results::Rows(Vec::with_capacity(questions))
            }
            _ => Results::new(plan, questions),
        }
    }

    fn fold(&self, cell: usize) -> &Walked {
        &self.folds[self.kernel.cells[cell].fold]
    }
}
