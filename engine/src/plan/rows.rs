//! A view's row stage over a batch of source events: what the stream folds and the point-in-time join walks.
//!
//! Guarantee: an event that can't be evaluated (a failed cast, a division by zero) is left out by itself, with its
//! reason; the other events of the batch are not touched. Online and offline call this same function.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::{Result, exec_datafusion_err};

use super::FeatureView;
use super::pipeline::{Rows, batch, nullable};
use crate::source::{OFFSET, PARTITION};

/// Events after a view's row stage, in input order; parallel arrays.
#[derive(Debug, Clone)]
pub struct ViewRows {
    /// The key's columns. Where a part is NULL the event is about no entity.
    pub keys: Vec<ArrayRef>,
    /// Event times, microseconds UTC.
    pub times: Int64Array,
    pub partitions: Int32Array,
    pub offsets: Int64Array,
    pub ids: Option<ArrayRef>,
    /// The timeline's columns.
    pub columns: Vec<ArrayRef>,
    pub failed: Vec<FailedEvent>,
}

/// An event that the row stage of a view could not evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEvent {
    pub partition: i32,
    pub offset: i64,
    pub reason: String,
}

impl FeatureView {
    /// Runs the row stage over source events: the contract's columns, then `_partition`, `_offset`, `_ingested_at`.
    pub fn rows(&self, events: &RecordBatch) -> Result<ViewRows> {
        let columns = self.source.schema.fields().len();
        let partitions = column(events, PARTITION)?;
        let offsets = column(events, OFFSET)?;
        let times = column(events, &self.source.timestamp)?;
        // Nullable: a training set leaves out the columns that no step reads.
        let schema = nullable(&self.source.schema);
        let input = batch(schema, events.columns()[..columns.min(events.num_columns())].to_vec(), events.num_rows())?;
        let mut failed = vec![];
        let rows = match self.row_stage.run(input.clone()) {
            Ok(rows) => rows,
            Err(_) => {
                let mut parts = vec![];
                self.isolate(&input, 0, &mut parts, &mut failed);
                join(parts, &self.row_stage.output)?
            }
        };
        let failed = failed
            .into_iter()
            .map(|(row, reason)| FailedEvent {
                partition: partitions.as_primitive::<Int32Type>().value(row),
                offset: offsets.as_primitive::<Int64Type>().value(row),
                reason,
            })
            .collect();
        // Rows come out in order, each once: if there are as many, they are the same.
        let all = rows.origin.len() == events.num_rows();
        let origin = UInt32Array::from(rows.origin);
        let of_rows = |column: &ArrayRef| -> Result<ArrayRef> {
            if all { Ok(column.clone()) } else { Ok(take(column, &origin, None)?) }
        };
        let times = of_rows(times)?;
        let ids = self.source.event_id.as_ref().map(|id| of_rows(column(events, id)?)).transpose();
        let (keys, columns) = rows.batch.columns().split_at(self.keys.len());
        Ok(ViewRows {
            keys: keys.to_vec(),
            times: times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
            partitions: of_rows(partitions)?.as_primitive().clone(),
            offsets: of_rows(offsets)?.as_primitive().clone(),
            ids: ids?,
            columns: columns.to_vec(),
            failed,
        })
    }

    /// The key's columns, without their names. Whatever a column's encoding, equal values are equal keys.
    pub(crate) fn key_fields(&self) -> Vec<Field> {
        let types = self.keys.iter().map(|key| match key.data_type() {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        });
        types.enumerate().map(|(i, data_type)| Field::new(format!("key_{i}"), data_type, true)).collect()
    }

    /// Key columns as [`FeatureView::key_fields`] has them.
    pub(crate) fn key_columns(&self, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        keys.iter().zip(self.key_fields()).map(|(key, field)| Ok(cast(key, field.data_type())?)).collect()
    }

    /// [`ViewRows`] as a batch: key, event time, partition, offset, perhaps an event id, then the timeline's columns.
    pub(crate) fn rows_schema(&self) -> SchemaRef {
        let spec = self.kernel.spec();
        let place = [("time", DataType::Int64), ("partition", DataType::Int32), ("offset", DataType::Int64)];
        let place = place.into_iter().map(|(name, data_type)| Field::new(name, data_type, false));
        let columns = spec.event_id.iter().chain(&spec.columns).map(|f| f.data_type().clone()).enumerate();
        let columns = columns.map(|(i, data_type)| Field::new(format!("column_{i}"), data_type, true));
        Arc::new(Schema::new(self.key_fields().into_iter().chain(place).chain(columns).collect::<Vec<_>>()))
    }

    /// Which columns of [`FeatureView::rows_schema`] are partition and offset.
    pub(crate) fn places(&self) -> Range<usize> {
        self.keys.len() + 1..self.keys.len() + 3
    }

    /// What [`ViewRows::into_batch`] made a batch.
    pub(crate) fn rows_of(&self, rows: &RecordBatch) -> Result<ViewRows> {
        let mut columns = rows.columns().iter().cloned();
        let keys: Vec<ArrayRef> = columns.by_ref().take(self.keys.len()).collect();
        let mut next =
            || columns.next().ok_or_else(|| exec_datafusion_err!("view {}: a row of events is cut", self.name));
        let (times, partitions, offsets) = (next()?, next()?, next()?);
        let ids = self.kernel.spec().event_id.as_ref().map(|_| next()).transpose()?;
        Ok(ViewRows {
            keys,
            times: times.as_primitive().clone(),
            partitions: partitions.as_primitive().clone(),
            offsets: offsets.as_primitive().clone(),
            ids,
            columns: columns.collect(),
            failed: vec![],
        })
    }

    /// Halves a failing batch until the failing rows stand alone.
    fn isolate(&self, input: &RecordBatch, start: usize, parts: &mut Vec<Rows>, failed: &mut Vec<(usize, String)>) {
        match self.row_stage.run(input.clone()) {
            Ok(mut rows) => {
                rows.origin.iter_mut().for_each(|o| *o += start as u32);
                parts.push(rows);
            }
            Err(e) if input.num_rows() <= 1 => failed.push((start, e.strip_backtrace())),
            Err(_) => {
                let half = input.num_rows() / 2;
                self.isolate(&input.slice(0, half), start, parts, failed);
                self.isolate(&input.slice(half, input.num_rows() - half), start + half, parts, failed);
            }
        }
    }
}

impl ViewRows {
    /// As [`FeatureView::rows_schema`] says; without the events that failed.
    pub(crate) fn into_batch(self, view: &FeatureView) -> Result<RecordBatch> {
        let rows = self.times.len();
        let place: [ArrayRef; 3] = [Arc::new(self.times), Arc::new(self.partitions), Arc::new(self.offsets)];
        let columns = view.key_columns(&self.keys)?.into_iter().chain(place).chain(self.ids).chain(self.columns);
        batch(view.rows_schema(), columns.collect(), rows)
    }
}

fn join(parts: Vec<Rows>, schema: &SchemaRef) -> Result<Rows> {
    let batches: Vec<RecordBatch> = parts.iter().map(|p| p.batch.clone()).collect();
    let origin = parts.into_iter().flat_map(|p| p.origin).collect();
    let first = batches.first().map_or_else(|| Arc::clone(schema), |b| b.schema());
    Ok(Rows { batch: concat_batches(&first, &batches)?, origin })
}

fn column<'a>(events: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    events.column_by_name(name).ok_or_else(|| exec_datafusion_err!("a source batch without column {name}"))
}
