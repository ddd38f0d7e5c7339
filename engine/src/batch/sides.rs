//! The two sides of a point-in-time join on their way into buckets.
//!
//! Guarantees: an event that may matter to a row of the spine is kept, one that can't mostly isn't; a row of the spine always is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, lit};
use datafusion::physical_plan::metrics::SpillMetrics;

use super::horizon::Held;
use super::keys::Numbers;
use super::sieve::Sieve;
use crate::buckets::{Bucket, Buckets, hashes};
use crate::kernel::KeyedRows;
use crate::plan::FeatureView;
use crate::plan::pipeline::{batch, nullable};
use crate::plan::rows::ViewRows;
use crate::plan::service::ROW;
use crate::plan::timestamp_type;
use crate::source::nulls::nulls;

/// The spine, while it is read.
pub(super) struct SpineSide {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    instant: Arc<dyn PhysicalExpr>,
    key_fields: Vec<Field>,
    schema: SchemaRef,
    buckets: Buckets,
    wanted: Wanted,
    /// If some events are gone.
    held: Option<Held>,
    rows: usize,
}

/// What events the spine asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    keys: Sieve,
    earliest: i64,
    latest: i64,
}

impl Wanted {
    /// From when on events matter to a view.
    fn earliest(&self, view: &FeatureView) -> i64 {
        view.kernel.reach().map_or(i64::MIN, |reach| self.earliest.saturating_sub(reach))
    }

    /// Which events matter to any of the views, by their time.
    pub fn times(&self, views: &[Arc<FeatureView>], time: &Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        let at = |at| lit(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())));
        let compared =
            |op, instant| -> Arc<dyn PhysicalExpr> { Arc::new(BinaryExpr::new(time.clone(), op, at(instant))) };
        let latest = compared(Operator::LtEq, self.latest);
        match views.iter().map(|view| self.earliest(view)).min().filter(|earliest| *earliest > i64::MIN) {
            Some(earliest) => Arc::new(BinaryExpr::new(compared(Operator::GtEq, earliest), Operator::And, latest)),
            None => latest,
        }
    }
}

/// Columns that stand behind the spine's own: the key in the view's types, the instant, and whether the row has a key.
pub(super) fn spine_schema(spine: &Schema, keys: &[Field]) -> SchemaRef {
    let own = nullable(spine);
    let hidden = [Field::new("at", DataType::Int64, false), Field::new("live", DataType::Boolean, false)];
    let fields = own.fields().iter().cloned();
    Arc::new(Schema::new(fields.chain(keys.iter().chain(&hidden).map(|f| Arc::new(f.clone()))).collect::<Vec<_>>()))
}

impl SpineSide {
    pub fn new(
        spine: &Schema,
        keys: &[Arc<dyn PhysicalExpr>],
        instant: &Arc<dyn PhysicalExpr>,
        (view, held): (&FeatureView, Option<Held>),
        context: &TaskContext,
        (metrics, memory): (SpillMetrics, Arc<MemoryReservation>),
    ) -> Self {
        let key_fields = view.key_fields();
        let schema = spine_schema(spine, &key_fields);
        Self {
            keys: keys.to_vec(),
            instant: instant.clone(),
            key_fields,
            schema: schema.clone(),
            buckets: Buckets::new(schema, context, metrics, Some(memory)),
            wanted: Wanted { keys: Sieve::new(), earliest: i64::MAX, latest: i64::MIN },
            held,
            rows: 0,
        }
    }

    pub fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        let n = rows.num_rows();
        let instants = cast(&self.instant.evaluate(rows)?.into_array(n)?, &timestamp_type())?;
        if let Some(row) = (0..n).find(|row| instants.is_null(*row)) {
            let row = row_number(rows, row).unwrap_or(self.rows + row);
            return exec_err!(
                "row {} of the spine has no timestamp: every row needs the instant to evaluate at",
                row + 1
            );
        }
        let instants: Int64Array = instants.as_primitive::<TimestampMicrosecondType>().reinterpret_cast();
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let mut live = vec![true; n];
        let mut keys = vec![];
        for (expr, field) in self.keys.iter().zip(&self.key_fields) {
            let array = expr.evaluate(rows)?.into_array(n)?;
            live.iter_mut().enumerate().for_each(|(i, live)| *live &= array.is_valid(i));
            // A value outside the key's type becomes NULL: no event can have it.
            keys.push(cast_with_options(&array, field.data_type(), &options)?);
        }
        if let Some(held) = &self.held {
            held.check(rows, (instants.values(), &live), self.rows)?;
        }
        let hashes = hashes(&keys, n)?;
        for ((hash, at), live) in hashes.iter().zip(instants.values()).zip(&live) {
            if *live {
                self.wanted.keys.insert(*hash);
                self.wanted.earliest = self.wanted.earliest.min(*at);
                self.wanted.latest = self.wanted.latest.max(*at);
            }
        }
        let hidden: [ArrayRef; 2] = [Arc::new(instants), Arc::new(BooleanArray::from(live))];
        let columns = rows.columns().iter().cloned().chain(keys).chain(hidden).collect();
        self.rows += n;
        self.buckets.push(batch(self.schema.clone(), columns, n)?, (0u32..).zip(hashes))
    }

    pub fn finish(mut self) -> Result<(Vec<Bucket>, Wanted)> {
        self.wanted.keys.fold();
        Ok((self.buckets.finish()?, self.wanted))
    }
}

/// The number of a row in the whole spine, where the plan knows it.
pub(super) fn row_number(rows: &RecordBatch, row: usize) -> Option<usize> {
    let numbers = rows.column_by_name(ROW)?.as_primitive_opt::<Int64Type>()?;
    usize::try_from(*numbers.values().get(row)?).ok()
}

/// The events of one view, while they are read.
pub(super) struct EventSide {
    view: Arc<FeatureView>,
    wanted: Arc<Wanted>,
    /// Of the view's rows, the columns that lie in a bucket.
    kept: Vec<usize>,
    buckets: Buckets,
}

impl EventSide {
    pub fn new(
        view: &Arc<FeatureView>,
        wanted: &Arc<Wanted>,
        in_order: bool,
        context: &TaskContext,
        (metrics, memory): (SpillMetrics, Arc<MemoryReservation>),
    ) -> Result<Self> {
        let buckets = Buckets::new(events_schema(view, in_order)?, context, metrics, Some(memory));
        Ok(Self { view: view.clone(), wanted: wanted.clone(), kept: kept(view, in_order), buckets })
    }

    /// Takes source events: all columns of the source.
    pub fn push(&mut self, events: &RecordBatch) -> Result<()> {
        let rows = self.view.rows(events)?;
        let times = rows.times.clone();
        let rows = rows.into_batch(&self.view)?;
        let keys = &rows.columns()[..self.view.keys.len()];
        let hashes = hashes(keys, rows.num_rows())?;
        let window = self.wanted.earliest(&self.view)..=self.wanted.latest;
        let nulls: Vec<ArrayRef> = keys.iter().filter(|key| key.null_count() > 0).cloned().collect();
        let wanted = |&(row, hash): &(u32, u64)| {
            window.contains(&times.values()[row as usize])
                && self.wanted.keys.may_hold(hash)
                && nulls.iter().all(|key| key.is_valid(row as usize))
        };
        self.buckets.push(rows.project(&self.kept)?, (0u32..).zip(hashes).filter(wanted))
    }

    pub fn finish(self) -> Result<Vec<Bucket>> {
        self.buckets.finish()
    }
}

/// A batch with every column of a view's source: those that the plan pruned are NULL, since no step reads them.
pub(super) fn whole(view: &FeatureView, events: &RecordBatch) -> Result<RecordBatch> {
    let source = crate::source::event_schema(&view.source.schema);
    let columns = source
        .fields()
        .iter()
        .map(|f| match events.column_by_name(f.name()) {
            Some(column) if column.data_type() == f.data_type() => Ok(column.clone()),
            Some(column) => Ok(cast(column, f.data_type())?),
            None => Ok(nulls(f.data_type(), events.num_rows())),
        })
        .collect::<Result<Vec<_>>>()?;
    batch(nullable(&source), columns, events.num_rows())
}

/// A view's rows as they lie in a bucket. Where all events come in the order of their places, that order is enough: rows stay in it.
pub(super) fn events_schema(view: &FeatureView, in_order: bool) -> Result<SchemaRef> {
    Ok(Arc::new(view.rows_schema().project(&kept(view, in_order))?))
}

fn kept(view: &FeatureView, in_order: bool) -> Vec<usize> {
    let columns = 0..view.rows_schema().fields().len();
    columns.filter(|column| !in_order || !view.places().contains(column)).collect()
}

/// A view's rows from a bucket, with the numbers of their keys.
pub(super) fn keyed(
    view: &FeatureView,
    events: &[RecordBatch],
    in_order: bool,
    numbers: &mut Numbers,
) -> Result<KeyedRows> {
    let rows = concat_batches(&events_schema(view, in_order)?, events)?;
    let n = rows.num_rows();
    let mut columns = rows.columns().to_vec();
    if in_order {
        // One place for all: rows of the same time stay as they are.
        let place: [ArrayRef; 2] = [Arc::new(Int32Array::from(vec![0; n])), Arc::new(Int64Array::from(vec![0; n]))];
        columns.splice(view.places().start..view.places().start, place);
    }
    let ViewRows { keys, times, partitions, offsets, ids, columns, .. } =
        view.rows_of(&batch(view.rows_schema(), columns, n)?)?;
    Ok(KeyedRows { keys: numbers.of(&keys)?, times, partitions, offsets, ids, columns })
}
