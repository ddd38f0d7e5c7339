//! Spines: from a training set's own query, or from a file.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions};
use tidemark_engine::batch::Spine;
use tidemark_engine::plan::{Project, TrainingSet, bind, provider, timestamp_type};

use crate::{Error, Result};

/// The rows that a training set's query gives.
pub async fn of_set(project: &Project, session: &SessionContext, set: &TrainingSet) -> Result<Spine> {
    let run = |source| Error::Run { what: format!("the spine of training set {}", set.name), source };
    let plan = bind(&set.spine, &|name| provider(&project.tables, name)).map_err(run)?;
    let rows = session.execute_logical_plan(plan).await.map_err(run)?;
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let batches = rows.collect().await.map_err(run)?;
    Spine::new(&batches, &schema, &set.timestamp).map_err(|source| Error::Plan { name: set.name.clone(), source })
}

/// The rows of a Parquet, CSV (with a header) or NDJSON file. Text in the timestamp column is read as RFC 3339, UTC
/// where it names no zone.
pub async fn of_file(session: &SessionContext, path: &Path, timestamp: &str) -> Result<Spine> {
    let wrong = |what: String, expected: &str| Error::Spine { path: path.into(), what, expected: expected.to_owned() };
    if !path.exists() {
        return Err(wrong("no such file".into(), "a Parquet, CSV or NDJSON file"));
    }
    let run = |source| Error::Run { what: format!("spine {}", path.display()), source };
    let rows = open(session, path).await?.map_err(run)?;
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let mut batches = rows.collect().await.map_err(run)?;
    let mut schema = Schema::clone(&schema);
    let index = schema.fields().iter().position(|f| f.name() == timestamp);
    if let Some(index) = index
        .filter(|i| matches!(schema.field(*i).data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8))
    {
        let mut before = 0;
        for batch in &mut batches {
            let instants = instants(batch.column(index)).map_err(|row| {
                let found = text(batch.column(index), row);
                wrong(
                    format!("column `{timestamp}`, row {}: {found} is no instant", before + row + 1),
                    "RFC 3339, such as 2026-01-31T12:00:00Z",
                )
            })?;
            before += batch.num_rows();
            *batch = with_column(batch, index, timestamp, instants).map_err(|e| run(e.into()))?;
        }
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields[index] = Field::new(timestamp, timestamp_type(), true);
        schema = Schema::new(fields);
    }
    Spine::new(&batches, &schema, timestamp).map_err(|source| Error::SpinePlan { path: path.into(), source })
}

async fn open(session: &SessionContext, path: &Path) -> Result<datafusion::error::Result<DataFrame>> {
    let location = path.to_string_lossy().into_owned();
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    let dotted = format!(".{extension}");
    Ok(match extension.to_lowercase().as_str() {
        "parquet" => session.read_parquet(location, ParquetReadOptions::default().file_extension(&dotted)).await,
        "csv" => session.read_csv(location, CsvReadOptions::default().file_extension(&dotted)).await,
        "ndjson" | "jsonl" | "json" => {
            session.read_json(location, JsonReadOptions::default().file_extension(&dotted)).await
        }
        _ => {
            let what = if extension.is_empty() {
                "its name has no extension".to_owned()
            } else {
                format!("unknown extension `.{extension}`")
            };
            return Err(Error::Spine {
                path: path.into(),
                what,
                expected: "a file named *.parquet, *.csv, *.ndjson or *.jsonl".into(),
            });
        }
    })
}

/// Text as instants, or the first row that is none.
fn instants(texts: &ArrayRef) -> Result<ArrayRef, usize> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let instants = cast_with_options(texts, &timestamp_type(), &options).map_err(|_| 0usize)?;
    match (0..texts.len()).find(|i| texts.is_valid(*i) && instants.is_null(*i)) {
        Some(row) => Err(row),
        None => Ok(instants),
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    datafusion::arrow::util::display::array_value_to_string(column, row)
        .map_or_else(|_| "a value".into(), |v| format!("`{v}`"))
}

fn with_column(
    batch: &RecordBatch,
    index: usize,
    name: &str,
    column: ArrayRef,
) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut columns = batch.columns().to_vec();
    if let (Some(field), Some(place)) = (fields.get_mut(index), columns.get_mut(index)) {
        *field = Field::new(name, timestamp_type(), true);
        *place = column;
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
