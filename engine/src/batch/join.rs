//! A point-in-time join of what lies in one bucket: pure work, apart from DataFusion's plumbing.
//!
//! The keys of the spine's rows are numbered, the events grouped by those numbers and put in order, and the view's kernel walks
//! both together, key by key. The walk can be shared out: each part answers some of the rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, not, nullif, take_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use datafusion::error::DataFusionError;

use super::keys::Numbers;
use super::sides::{keyed, row_number, spine_schema};
use super::step::first_failing;
use crate::kernel::{Question, Walk, WalkError, encode_keys};
use crate::plan::FeatureView;
use crate::plan::pipeline::batch;

/// A bucket, ready to be walked.
pub(super) struct Joined {
    views: Vec<Arc<FeatureView>>,
    /// The spine's rows, with the columns that stand behind their own.
    spine: RecordBatch,
    own: usize,
    /// The rows by key and instant, and what each asks.
    order: UInt32Array,
    questions: Vec<Question>,
    /// Parallel to the views.
    walks: Vec<Walk>,
    /// Rows of a part.
    rows: usize,
}

/// The number of the key of a row that has none, or one that no event can have.
const NOBODY: u32 = u32::MAX;

impl Joined {
    /// `spine` and, for each view, `events` as [`super::sides`] puts them into buckets. A part of the walk answers so many `rows`:
    /// those of a hot key are shared out too.
    pub fn new(
        views: &[Arc<FeatureView>],
        spine_columns: &Schema,
        spine: &[RecordBatch],
        (events, in_order): (Vec<Vec<RecordBatch>>, bool),
        rows: usize,
    ) -> Result<Self> {
        let key_fields = views.first().map(|view| view.key_fields()).unwrap_or_default();
        let schema = spine_schema(spine_columns, &key_fields);
        let spine = concat_batches(&schema, spine)?;
        let own = spine_columns.fields().len();
        let keys = spine.columns()[own..own + key_fields.len()].to_vec();
        let mut numbers = Numbers::new(&key_fields)?;
        let of = numbers.of(&keys)?;
        let count = numbers.count();
        let known = |row: usize| keys.iter().all(|key| key.is_valid(row));
        let instants = spine.column(own + keys.len()).as_primitive::<Int64Type>();
        let mut order: Vec<(Question, u32)> = (0u32..)
            .zip(of)
            .zip(instants.values())
            .map(|((row, key), at)| (Question { key: if known(row as usize) { key } else { NOBODY }, at: *at }, row))
            .collect();
        order.sort_unstable();
        let (questions, order): (Vec<Question>, Vec<u32>) = order.into_iter().unzip();
        let order = UInt32Array::from(order);
        let mut walks = vec![];
        for (view, events) in views.iter().zip(&events) {
            let events = keyed(view, events, in_order, &mut numbers)?;
            let failed = |e| exec_datafusion_err!("view {}: {e}", view.name);
            let timelines = view.kernel.timelines(events, count).map_err(failed)?;
            walks.push(view.kernel.walk(timelines).map_err(failed)?);
        }
        Ok(Self { views: views.to_vec(), spine, own, order, questions, walks, rows })
    }

    /// Where the parts of the walk begin.
    pub fn parts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.questions.len()).step_by(self.rows)
    }

    /// The spine's rows of a part, in the walk's order, with the views' values behind.
    pub fn part(&self, from: usize, schema: &SchemaRef) -> Result<RecordBatch> {
        let n = self.rows.min(self.questions.len() - from);
        // A copy, so that who holds a part doesn't hold all.
        let spine = take_record_batch(&self.spine, &self.order.slice(from, n))?;
        let (columns, hidden) = spine.columns().split_at(self.own);
        let Some((keys, [_, live])) = hidden.split_last_chunk() else {
            return internal_err!("a bucket of the spine without instants");
        };
        let live = as_boolean_array(live)?;
        let mut columns = columns.to_vec();
        for (view, walk) in self.views.iter().zip(&self.walks) {
            let failed = |error: WalkError| {
                let row = error.question.map(|question| spine.slice(question, 1));
                of_row(view, self.own, row, error.source.to_string())
            };
            let results = walk.answer(&self.questions[from..from + n]).map_err(failed)?;
            let results = if live.true_count() == n {
                results
            } else {
                // A row without a key is about nobody: nothing is computed of it.
                let dead = not(live)?;
                results.iter().map(|column| Ok(nullif(column, &dead)?)).collect::<Result<_>>()?
            };
            let project = |at, n| {
                let cut = |columns: &[ArrayRef]| columns.iter().map(|c| c.slice(at, n)).collect();
                view.project(
                    typed_keys(view, keys)?.iter().map(|c| c.slice(at, n)).collect(),
                    cut(&results),
                    &live.slice(at, n),
                )
            };
            let values = project(0, n).map_err(|error| blame(view, &spine, self.own, error, project))?;
            columns.extend(values.columns().iter().cloned());
        }
        batch(schema.clone(), columns, n)
    }
}

/// The keys as the view has them, which may be dictionaries.
fn typed_keys(view: &FeatureView, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    keys.iter().zip(&view.keys).map(|(key, field)| Ok(cast(key, field.data_type())?)).collect()
}

/// The projection's error, with the first row that has it.
fn blame(
    view: &FeatureView,
    spine: &RecordBatch,
    own: usize,
    error: DataFusionError,
    project: impl Fn(usize, usize) -> Result<RecordBatch>,
) -> DataFusionError {
    match first_failing(spine.num_rows(), project) {
        Some((row, failure)) => of_row(view, own, Some(spine.slice(row, 1)), failure.to_string()),
        None => error,
    }
}

/// An error, of one row of the spine if it is known.
fn of_row(view: &FeatureView, own: usize, row: Option<RecordBatch>, cause: String) -> DataFusionError {
    let mut place = format!("view {}", view.name);
    if let Some(row) = row {
        let keys = row.columns().get(own..own + view.keys.len()).and_then(|keys| encode_keys(keys).ok());
        place.extend(keys.iter().flat_map(|keys| keys.get(0)).map(|key| format!(", key {key}")));
        place.extend(row_number(&row, 0).map(|number| format!(", row {} of the spine", number + 1)));
    }
    exec_datafusion_err!("{place}: {cause}")
}
