//! The results of one aggregate, a row each, before they are a column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, UInt32Array};
use arrow::compute::take;
use datafusion::common::ScalarValue;

use super::KernelError;
use super::compile::Plan;
use super::fold::generic::to_type;
use super::fold::value::{Value, build};
use super::fold::{Input, position_nth};
use super::spec::Aggregate;

pub(super) enum Results {
    Counts(Int64Builder),
    Doubles(Float64Builder),
    Values(Vec<Option<Value>>),
    /// Rows of the argument's column: what is there is copied once, at the end.
    Rows(Vec<Option<u32>>),
    Scalars(Vec<Option<ScalarValue>>),
}

impl Results {
    pub fn new(plan: &Plan, capacity: usize) -> Self {
        match plan {
            Plan::Typed { .. } => Results::Values(Vec::with_capacity(capacity)),
            Plan::Nth { .. } => Results::Rows(Vec::with_capacity(capacity)),
            Plan::Generic { .. } => Results::Scalars(Vec::with_capacity(capacity)),
        }
    }

    pub fn push_null(&mut self) {
        match self {
            Results::Counts(counts) => counts.append_null(),
            Results::Doubles(doubles) => doubles.append_null(),
            Results::Values(values) => values.push(None),
            Results::Rows(rows) => rows.push(None),
            Results::Scalars(scalars) => scalars.push(None),
        }
    }

    /// The result of an aggregate that has no typed fold, over the rows that its frame covers.
    pub fn push_window(
        &mut self,
        plan: &Plan,
        input: Option<&Input>,
        covered: impl Fn(usize) -> Range<usize>,
    ) -> Result<(), KernelError> {
        match (plan, input, self) {
            (Plan::Nth { frame, n, .. }, Some(input), Results::Rows(rows)) => {
                rows.push(position_nth(input.mask.as_ref(), covered(*frame), *n).map(|row| row as u32));
            }
            (Plan::Generic { frame, generic, .. }, Some(input), Results::Scalars(scalars)) => {
                scalars.push(Some(generic.evaluate(input, covered(*frame))?));
            }
            // Results and inputs are made from the plans, so that they agree.
            (_, _, results) => results.push_null(),
        }
        Ok(())
    }

    /// The column. `input` is what rows are rows of.
    pub fn finish(self, plan: &Plan, input: Option<&Input>, aggregate: &Aggregate) -> Result<ArrayRef, KernelError> {
        let column: ArrayRef = match (self, plan, input) {
            (Results::Counts(mut counts), ..) => Arc::new(counts.finish()),
            (Results::Doubles(mut doubles), ..) => Arc::new(doubles.finish()),
            (Results::Values(values), Plan::Typed { result, .. }, _) => build(result, &values)?,
            (Results::Rows(rows), _, Some(input)) => take(&input.args[0], &UInt32Array::from(rows), None)?,
            (Results::Scalars(scalars), Plan::Generic { generic, .. }, _) => generic.build(scalars)?,
            _ => return Err(KernelError::Spec("results of another plan".to_owned())),
        };
        to_type(column, aggregate.output.data_type())
    }
}
