//! The rows that a training set starts from.
//!
//! Guarantees: the columns that the service asks for have the types of its signature, and the instants are UTC in
//! microseconds, whatever the rows came from: in the plan, and in the training set. A value that the type can't mean is
//! refused with its column and row, as a REST call refuses it (see [`crate::plan::fit`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::plan::fit::{Misfit, fit, may_fit};
use crate::plan::pipeline::{batch, nullable};
use crate::plan::service::{INSTANT, ROW, spine_column};
use crate::plan::words::sql_type;
use crate::plan::{FeatureService, timestamp_type};

#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    #[error("the spine has no column `{column}`, which service `{service}` asks for; it has {has}")]
    MissingColumn { column: String, service: String, has: String },
    #[error("the spine has no timestamp column `{column}`; it has {has}")]
    MissingTimestamp { column: String, has: String },
    #[error("column `{column}` of the spine is {found}; expected {expected}")]
    ColumnType { column: String, found: String, expected: String },
    #[error("column `{column}`, row {row} of the spine: found {found}, expected {expected}")]
    Value { column: String, row: usize, found: String, expected: String },
    #[error("column `{column}` is in the spine and is another thing in service `{service}`; rename it in the spine")]
    Ambiguous { column: String, service: String },
    #[error("the set has no column `{column}` to partition it by; expected day, month, or one of {has}{hint}")]
    Partition { column: String, has: String, hint: String },
    #[error(transparent)]
    Plan(#[from] DataFusionError),
}

impl From<arrow::error::ArrowError> for TrainingError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Plan(error.into())
    }
}

/// The rows that a training set starts from, read while its plan runs.
#[derive(Debug)]
pub struct Spine {
    /// The columns as they come out.
    pub schema: SchemaRef,
    /// The column with the instant to evaluate at.
    pub timestamp: String,
    reading: Reading,
}

/// What becomes of rows on their way into the plan.
#[derive(Debug, Clone)]
struct Reading {
    /// In the order of the spine, one partition after the other.
    rows: Arc<dyn ExecutionPlan>,
    spine: SchemaRef,
    service: String,
    signature: SchemaRef,
    /// Whether the request has its instant as a column.
    reads_instant: bool,
    timestamp: String,
    /// What the plan reads: the service's request, then the hidden columns.
    schema: SchemaRef,
    cut: Cut,
}

/// Which rows of a spine count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cut {
    /// From this instant on, in microseconds.
    pub from: Option<i64>,
    /// Before this one.
    pub to: Option<i64>,
    /// Such a part of the rows, from 0 to 1, drawn by their numbers: the same ones whenever it is asked.
    pub sample: Option<f64>,
}

impl Cut {
    fn keeps(&self, row: usize, at: i64) -> bool {
        // SplitMix64: evenly spread, whatever the numbers.
        let drawn = |part: f64| {
            let mut mixed = (row as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64 <= part && part > 0.0
        };
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to) && self.sample.is_none_or(drawn)
    }
}

impl Spine {
    /// Rows for a service. `timestamp` is a timestamp, a date (its midnight) or text in RFC 3339 (UTC where it names no zone).
    pub fn new(service: &FeatureService, rows: Arc<dyn ExecutionPlan>, timestamp: &str) -> Result<Self, TrainingError> {
        let given = nullable(&rows.schema());
        let has = || given.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let mut fields: Vec<Field> = given.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut put = |name: &str, to: &DataType, expected: String, missing: TrainingError| {
            let Ok(place) = given.index_of(name) else { return Err(missing) };
            let from = given.field(place).data_type();
            if !may_fit(from, to) {
                let column = name.to_owned();
                return Err(TrainingError::ColumnType { column, found: sql_type(from), expected });
            }
            fields[place] = Field::new(name, to.clone(), true);
            Ok(())
        };
        let missing = TrainingError::MissingTimestamp { column: timestamp.to_owned(), has: has() };
        put(timestamp, &timestamp_type(), INSTANTS.to_owned(), missing)?;
        for wanted in service.signature.fields() {
            let (column, of) = (wanted.name().clone(), service.name.clone());
            let missing = TrainingError::MissingColumn { column, service: of, has: has() };
            put(wanted.name(), wanted.data_type(), expected(wanted, &service.name), missing)?;
        }
        let spine: SchemaRef = Arc::new(Schema::new(fields));
        let hidden = [Field::new(ROW, DataType::Int64, false), Field::new(INSTANT, timestamp_type(), true)];
        let columns = spine.fields().iter().enumerate();
        let columns = columns.map(|(i, field)| Field::new(spine_column(i), field.data_type().clone(), true));
        let request = service.request.fields().iter().map(|f| f.as_ref().clone());
        let schema = Arc::new(Schema::new(request.chain(hidden).chain(columns).collect::<Vec<_>>()));
        let reading = Reading {
            rows,
            spine: spine.clone(),
            service: service.name.clone(),
            signature: service.signature.clone(),
            reads_instant: service.reads_instant(),
            timestamp: timestamp.to_owned(),
            schema,
            cut: Cut::default(),
        };
        Ok(Self { schema: spine, timestamp: timestamp.to_owned(), reading })
    }

    /// Only some of the rows. All of them are checked, and numbered, all the same.
    pub fn cut(mut self, cut: Cut) -> Self {
        self.reading.cut = cut;
        self
    }

    /// The rows as the service's request, the hidden columns behind: row number, instant, and every column of the spine.
    pub(super) fn table(&self) -> Result<Arc<dyn TableProvider>> {
        let rows = Arc::new(self.reading.clone());
        Ok(Arc::new(StreamingTable::try_new(self.reading.schema.clone(), vec![rows])?))
    }
}

impl PartitionStream for Reading {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let partitions = 0..self.rows.properties().output_partitioning().partition_count();
        let rows = self.rows.clone();
        let batches = stream::iter(partitions.map(move |partition| rows.execute(partition, context.clone())));
        let (this, mut read) = (self.clone(), 0);
        let batches = batches.try_flatten().map(move |batch| {
            let batch = batch?;
            let first = read;
            read += batch.num_rows();
            this.convert(&batch, first).map_err(|e| match e {
                TrainingError::Plan(e) => e,
                other => DataFusionError::External(other.into()),
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

const INSTANTS: &str = "an instant, such as 2026-01-31T12:00:00Z";

fn expected(wanted: &Field, service: &str) -> String {
    format!("{}, as service `{service}` asks for", sql_type(wanted.data_type()))
}

impl Reading {
    /// Rows of the spine from row `first` on, as the plan reads them.
    fn convert(&self, rows: &RecordBatch, first: usize) -> Result<RecordBatch, TrainingError> {
        let mut spine: Vec<ArrayRef> = rows.columns().to_vec();
        let column =
            |name: &str| -> Result<&ArrayRef, TrainingError> { Ok(rows.column(rows.schema_ref().index_of(name)?)) };
        let instants = typed(&self.timestamp, column(&self.timestamp)?, &timestamp_type(), INSTANTS, first)?;
        if let Some(row) = (0..instants.len()).find(|i| instants.is_null(*i)) {
            return Err(TrainingError::Value {
                column: self.timestamp.clone(),
                row: first + row + 1,
                found: "NULL".into(),
                expected: "the instant to evaluate the row at".to_owned(),
            });
        }
        spine[self.spine.index_of(&self.timestamp)?] = instants.clone();
        let mut request = vec![];
        for wanted in self.signature.fields() {
            let expected = expected(wanted, &self.service);
            let column = typed(wanted.name(), column(wanted.name())?, wanted.data_type(), &expected, first)?;
            spine[self.spine.index_of(wanted.name())?] = column.clone();
            request.push(column);
        }
        if self.reads_instant {
            request.push(instants.clone());
        }
        let n = rows.num_rows();
        let numbers = (first as i64..(first + n) as i64).collect::<Int64Array>();
        let times = instants.clone();
        let columns = request.into_iter().chain([Arc::new(numbers) as ArrayRef, instants]).chain(spine).collect();
        let whole = batch(self.schema.clone(), columns, n)?;
        if self.cut == Cut::default() {
            return Ok(whole);
        }
        let instants = times.as_primitive::<TimestampMicrosecondType>().values();
        let kept = instants.iter().enumerate().map(|(row, at)| Some(self.cut.keeps(first + row, *at)));
        Ok(filter_record_batch(&whole, &kept.collect::<BooleanArray>())?)
    }
}

/// A column of the spine in the type that is asked for, or its first value that is none of it.
fn typed(
    name: &str,
    column: &ArrayRef,
    to: &DataType,
    expected: &str,
    first: usize,
) -> Result<ArrayRef, TrainingError> {
    fit(column, to).map_err(|misfit| match misfit {
        Misfit::Types => TrainingError::ColumnType {
            column: name.to_owned(),
            found: sql_type(column.data_type()),
            expected: expected.to_owned(),
        },
        Misfit::Row(row) => TrainingError::Value {
            column: name.to_owned(),
            row: first + row + 1,
            found: array_value_to_string(column, row).map_or_else(|_| "a value".into(), |v| format!("`{v}`")),
            expected: expected.to_owned(),
        },
    })
}
