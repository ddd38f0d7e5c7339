//! The rows that a training set starts from.
//!
//! Guarantees: the columns that the service asks for have the types of its signature, and the instants are UTC in
//! microseconds, whatever the rows came from: in the plan, and in the training set. A value that the type can't mean is
//! refused with its column and row, as a REST call refuses it (see [`crate::plan::fit`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;

use crate::plan::fit::{Misfit, fit};
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
    #[error(transparent)]
    Plan(#[from] DataFusionError),
}

impl From<arrow::error::ArrowError> for TrainingError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Plan(error.into())
    }
}

/// The rows that a training set starts from, in memory.
#[derive(Debug)]
pub struct Spine {
    pub rows: RecordBatch,
    /// The column with the instant to evaluate at.
    pub timestamp: String,
    instants: ArrayRef,
}

impl Spine {
    /// Rows for a service. `timestamp` is a timestamp, a date (its midnight) or text in RFC 3339 (UTC where it names no zone).
    pub fn new(
        service: &FeatureService,
        batches: &[RecordBatch],
        schema: &Schema,
        timestamp: &str,
    ) -> Result<Self, TrainingError> {
        let schema = nullable(schema);
        let batches = batches
            .iter()
            .map(|b| batch(schema.clone(), b.columns().to_vec(), b.num_rows()))
            .collect::<Result<Vec<_>>>()?;
        let rows = concat_batches(&schema, &batches)?;
        let has = || schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();

        let place = schema
            .index_of(timestamp)
            .map_err(|_| TrainingError::MissingTimestamp { column: timestamp.to_owned(), has: has() })?;
        let expected = "an instant, such as 2026-01-31T12:00:00Z";
        let instants = typed(timestamp, rows.column(place), &timestamp_type(), expected)?;
        if let Some(row) = (0..instants.len()).find(|i| instants.is_null(*i)) {
            let expected = "the instant to evaluate the row at".to_owned();
            return Err(TrainingError::Value {
                column: timestamp.to_owned(),
                row: row + 1,
                found: "NULL".into(),
                expected,
            });
        }
        let mut put = |place: usize, column: ArrayRef| {
            if let (Some(field), Some(old)) = (fields.get_mut(place), columns.get_mut(place)) {
                *field = Field::new(field.name(), column.data_type().clone(), true);
                *old = column;
            }
        };
        put(place, instants.clone());
        for wanted in service.signature.fields() {
            let place = schema.index_of(wanted.name()).map_err(|_| TrainingError::MissingColumn {
                column: wanted.name().clone(),
                service: service.name.clone(),
                has: has(),
            })?;
            let expected = format!("{}, as service `{}` asks for", sql_type(wanted.data_type()), service.name);
            put(place, typed(wanted.name(), rows.column(place), wanted.data_type(), &expected)?);
        }
        let rows = batch(Arc::new(Schema::new(fields)), columns, rows.num_rows())?;
        Ok(Self { rows, timestamp: timestamp.to_owned(), instants })
    }

    /// The rows as the service's request, the hidden columns behind: row number, instant, and every column of the spine.
    pub(super) fn table(&self, service: &FeatureService) -> Result<Arc<dyn TableProvider>> {
        let schema = self.rows.schema();
        let mut fields: Vec<Field> = vec![];
        let mut columns: Vec<ArrayRef> = vec![];
        for field in service.signature.fields() {
            columns.push(self.rows.column(schema.index_of(field.name())?).clone());
            fields.push(field.as_ref().clone());
        }
        columns.push(Arc::new((0..self.rows.num_rows() as i64).collect::<Int64Array>()));
        fields.push(Field::new(ROW, DataType::Int64, false));
        columns.push(self.instants.clone());
        fields.push(Field::new(INSTANT, timestamp_type(), true));
        for (i, field) in schema.fields().iter().enumerate() {
            columns.push(self.rows.column(i).clone());
            fields.push(Field::new(spine_column(i), field.data_type().clone(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        let rows = batch(schema.clone(), columns, self.rows.num_rows())?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?))
    }
}

/// A column of the spine in the type that is asked for, or its first value that is none of it.
fn typed(name: &str, column: &ArrayRef, to: &DataType, expected: &str) -> Result<ArrayRef, TrainingError> {
    fit(column, to).map_err(|misfit| match misfit {
        Misfit::Types => TrainingError::ColumnType {
            column: name.to_owned(),
            found: sql_type(column.data_type()),
            expected: expected.to_owned(),
        },
        Misfit::Row(row) => TrainingError::Value {
            column: name.to_owned(),
            row: row + 1,
            found: array_value_to_string(column, row).map_or_else(|_| "a value".into(), |v| format!("`{v}`")),
            expected: expected.to_owned(),
        },
    })
}
