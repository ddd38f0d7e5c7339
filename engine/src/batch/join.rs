//! The work of a point-in-time join, apart from DataFusion's plumbing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, concat, concat_batches, take};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;

use super::step::first_failing;
use crate::kernel::{EntityKey, RowKeys, Status, encode_keys};
use crate::plan::FeatureView;
use crate::plan::pipeline::batch;
use crate::plan::rows::ViewRows;
use crate::plan::timestamp_type;

/// Gathers a spine, then events, then answers.
#[derive(Debug)]
pub struct Join {
    view: Arc<FeatureView>,
    spine: Vec<RecordBatch>,
    spine_rows: u32,
    key_columns: Vec<Vec<ArrayRef>>,
    /// Rows of the spine by key, with their instants.
    wanted: HashMap<EntityKey, Vec<(u32, i64)>>,
    /// Rows whose key can't have been seen: a value outside the key's type.
    unseen: Vec<(u32, i64)>,
    latest: i64,
    events: Vec<ViewRows>,
    reservation: MemoryReservation,
}

impl Join {
    pub fn new(view: Arc<FeatureView>, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new(format!("PointInTimeExec[{}]", view.name)).register(pool);
        Self {
            view,
            spine: vec![],
            spine_rows: 0,
            key_columns: vec![],
            wanted: HashMap::new(),
            unseen: vec![],
            latest: i64::MIN,
            events: vec![],
            reservation,
        }
    }

    /// Takes rows of the spine; all of them must come before the first events.
    pub fn spine(
        &mut self,
        rows: RecordBatch,
        keys: &[Arc<dyn PhysicalExpr>],
        instant: &Arc<dyn PhysicalExpr>,
    ) -> Result<()> {
        let n = rows.num_rows();
        let instants = cast(&instant.evaluate(&rows)?.into_array(n)?, &timestamp_type())?;
        let instants = instants.as_primitive::<TimestampMicrosecondType>();
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let mut given = vec![true; n];
        let mut columns = vec![];
        for (expr, field) in keys.iter().zip(&self.view.keys) {
            let array = expr.evaluate(&rows)?.into_array(n)?;
            given.iter_mut().enumerate().for_each(|(i, g)| *g &= array.is_valid(i));
            columns.push(cast_with_options(&array, field.data_type(), &options)?);
        }
        let texts = encode_keys(&columns).map_err(|e| exec_datafusion_err!("{e}"))?;
        for (i, text) in texts.iter().enumerate() {
            let row = self.spine_rows + i as u32;
            if instants.is_null(i) {
                return exec_err!(
                    "row {} of the spine has no timestamp: every row needs the instant to evaluate at",
                    row + 1
                );
            }
            let at = instants.value(i);
            self.latest = self.latest.max(at);
            match text {
                Some(key) => self.wanted.entry(key.clone()).or_default().push((row, at)),
                None if given[i] => self.unseen.push((row, at)),
                None => {}
            }
        }
        self.reservation.try_grow(rows.get_array_memory_size())?;
        self.spine_rows += n as u32;
        self.key_columns.push(columns);
        self.spine.push(rows);
        Ok(())
    }

    /// Takes source events; keeps those that a row of the spine may need.
    pub fn events(&mut self, events: &RecordBatch) -> Result<()> {
        let mut rows = self.view.rows(&self.whole(events)?)?;
        let keep: UInt32Array = (0..rows.keys.len() as u32)
            .filter(|i| {
                let i = *i as usize;
                rows.times.value(i) <= self.latest && rows.keys.get(i).is_some_and(|k| self.wanted.contains_key(k))
            })
            .collect();
        if keep.is_empty() {
            return Ok(());
        }
        if keep.len() < rows.keys.len() {
            rows = gather(&rows, &keep)?;
        }
        let bytes = rows.columns.iter().chain(&rows.ids).map(|c| c.get_array_memory_size()).sum::<usize>()
            + rows.keys.len() * 64;
        self.reservation.try_grow(bytes)?;
        self.events.push(rows);
        Ok(())
    }

    /// A batch with every column of the source: those that the plan pruned are NULL, since no step reads them.
    fn whole(&self, events: &RecordBatch) -> Result<RecordBatch> {
        let source = crate::source::event_schema(&self.view.source.schema);
        let columns = source
            .fields()
            .iter()
            .map(|f| match events.column_by_name(f.name()) {
                Some(column) if column.data_type() == f.data_type() => Ok(column.clone()),
                Some(column) => Ok(cast(column, f.data_type())?),
                None => Ok(new_null_array(f.data_type(), events.num_rows())),
            })
            .collect::<Result<Vec<_>>>()?;
        batch(crate::plan::pipeline::nullable(&source), columns, events.num_rows())
    }

    pub fn finish(mut self, schema: SchemaRef) -> Result<RecordBatch> {
        let aggregates = self.view.kernel.spec().aggregates.len();
        let mut columns: Vec<Vec<ArrayRef>> = vec![vec![]; aggregates];
        // Where in `columns` the answer for each row of the spine is; the first entry answers nothing.
        let mut place = vec![0u32; self.spine_rows as usize];
        for (column, aggregate) in columns.iter_mut().zip(&self.view.kernel.spec().aggregates) {
            column.push(new_null_array(aggregate.output.data_type(), 1));
        }
        let mut answers = 1u32;
        let timelines = Timelines::new(&self.view, std::mem::take(&mut self.events))?;
        let wanted = self.wanted.iter().map(|(key, rows)| (Some(key), rows)).chain([(None, &self.unseen)]);
        for (key, rows) in wanted.filter(|(_, rows)| !rows.is_empty()) {
            let timeline = timelines.of(key)?;
            let instants: Vec<i64> = rows.iter().map(|(_, at)| *at).collect();
            let evaluation = self.view.kernel.evaluate(&timeline, &instants).map_err(|e| match key {
                Some(key) => exec_datafusion_err!("view {}, key {key}: {e}", self.view.name),
                None => exec_datafusion_err!("view {}: {e}", self.view.name),
            })?;
            if evaluation.status.contains(&Status::OutsideRetention) {
                return exec_err!("view {}: a timeline of the archive is not whole", self.view.name);
            }
            for (i, (row, _)) in rows.iter().enumerate() {
                place[*row as usize] = answers + i as u32;
            }
            answers += rows.len() as u32;
            columns.iter_mut().zip(evaluation.columns).for_each(|(all, part)| all.push(part));
        }
        let live: BooleanArray = place.iter().map(|p| Some(*p > 0)).collect();
        let place = UInt32Array::from(place);
        let results = columns.iter().map(|parts| Ok(take(&join(parts)?, &place, None)?)).collect::<Result<Vec<_>>>()?;
        let keys = (0..self.view.keys.len())
            .map(|k| match self.key_columns.is_empty() {
                true => Ok(new_null_array(self.view.keys[k].data_type(), 0)),
                false => join(&self.key_columns.iter().map(|c| c[k].clone()).collect::<Vec<_>>()),
            })
            .collect::<Result<Vec<_>>>()?;
        let projected = self.view.project(keys.clone(), results.clone(), &live);
        let values = projected.map_err(|error| self.blame(&keys, &results, &live, error))?;
        let spine_columns = schema.fields().len() - values.num_columns();
        let left = match self.spine.first() {
            Some(first) => concat_batches(&first.schema(), &self.spine)?.columns().to_vec(),
            None => schema.fields().iter().take(spine_columns).map(|f| new_null_array(f.data_type(), 0)).collect(),
        };
        batch(schema, left.into_iter().chain(values.columns().iter().cloned()).collect(), self.spine_rows as usize)
    }

    /// The projection's error, with the first row of the spine that has it.
    fn blame(
        &self,
        keys: &[ArrayRef],
        results: &[ArrayRef],
        live: &BooleanArray,
        error: DataFusionError,
    ) -> DataFusionError {
        let cut = |columns: &[ArrayRef], at, n| columns.iter().map(|c| c.slice(at, n)).collect();
        let run = |at, n| self.view.project(cut(keys, at, n), cut(results, at, n), &live.slice(at, n));
        let Some((row, failure)) = first_failing(live.len(), run) else { return error };
        let of_row = |rows: &[(u32, i64)]| rows.iter().any(|(r, _)| *r as usize == row);
        let key = self.wanted.iter().find(|(_, rows)| of_row(rows)).map(|(key, _)| format!(", key {key}"));
        let key = key.unwrap_or_default();
        exec_datafusion_err!("view {}{key}, row {} of the spine: {failure}", self.view.name, row + 1)
    }
}

/// The kept events by key.
struct Timelines<'a> {
    view: &'a FeatureView,
    rows: Option<ViewRows>,
    by_key: HashMap<EntityKey, Vec<u32>>,
}

impl<'a> Timelines<'a> {
    fn new(view: &'a FeatureView, parts: Vec<ViewRows>) -> Result<Self> {
        let mut by_key: HashMap<EntityKey, Vec<u32>> = HashMap::new();
        for (at, key) in (0u32..).zip(parts.iter().flat_map(|p| p.keys.iter())) {
            if let Some(key) = key {
                by_key.entry(key.clone()).or_default().push(at);
            }
        }
        let rows = if parts.is_empty() { None } else { Some(concat_rows(&parts)?) };
        Ok(Self { view, rows, by_key })
    }

    fn of(&self, key: Option<&EntityKey>) -> Result<crate::kernel::Timeline> {
        let kernel = |e| exec_datafusion_err!("view {}: {e}", self.view.name);
        match (&self.rows, key.and_then(|k| self.by_key.get(k))) {
            (Some(rows), Some(indices)) => {
                let rows = gather(rows, &UInt32Array::from(indices.clone()))?;
                self.view
                    .kernel
                    .timeline_from_rows(rows.times, rows.partitions, rows.offsets, rows.ids, rows.columns)
                    .map_err(kernel)
            }
            _ => self.view.kernel.timeline(&[]).map_err(kernel),
        }
    }
}

fn join(parts: &[ArrayRef]) -> Result<ArrayRef> {
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(concat(&parts)?)
}

fn concat_rows(parts: &[ViewRows]) -> Result<ViewRows> {
    let all = |column: &dyn Fn(&ViewRows) -> ArrayRef| join(&parts.iter().map(column).collect::<Vec<_>>());
    let first = parts.first().ok_or_else(|| exec_datafusion_err!("no rows to join"))?;
    Ok(ViewRows {
        keys: RowKeys::default(),
        times: all(&|p| Arc::new(p.times.clone()))?.as_primitive().clone(),
        partitions: all(&|p| Arc::new(p.partitions.clone()))?.as_primitive().clone(),
        offsets: all(&|p| Arc::new(p.offsets.clone()))?.as_primitive().clone(),
        ids: match first.ids {
            Some(_) => Some(join(&parts.iter().filter_map(|p| p.ids.clone()).collect::<Vec<_>>())?),
            None => None,
        },
        columns: (0..first.columns.len()).map(|c| all(&|p| p.columns[c].clone())).collect::<Result<_>>()?,
        failed: vec![],
    })
}

fn gather(rows: &ViewRows, indices: &UInt32Array) -> Result<ViewRows> {
    let pick = |array: &dyn Array| take(array, indices, None);
    Ok(ViewRows {
        keys: rows.keys.take(indices),
        times: pick(&rows.times)?.as_primitive().clone() as Int64Array,
        partitions: pick(&rows.partitions)?.as_primitive().clone() as Int32Array,
        offsets: pick(&rows.offsets)?.as_primitive().clone(),
        ids: rows.ids.as_ref().map(|ids| pick(ids)).transpose()?,
        columns: rows.columns.iter().map(|c| pick(c)).collect::<Result<_, _>>()?,
        failed: vec![],
    })
}
