//! The columns of files, from the files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_avro::reader::ReaderBuilder as AvroReaderBuilder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::normalise::{normal_type, utc_micros};
use super::super::{META_COLUMNS, SourceError};
use super::location::{Format, files_error, list};

/// Rows of a text file that its types are inferred from.
const SAMPLE_ROWS: usize = 10_000;
/// Files that are looked at.
const SAMPLE_FILES: usize = 16;

/// The columns of the files of a location, all nullable. The first file (by path) that can be read decides a
/// column's type; later ones add columns, and widen an integer to a double. A text column is what every sampled
/// value of that file is: one `N/A` among numbers makes it text. Blocks on the disk.
pub fn infer(source: &str, location: &str, format: Option<Format>) -> Result<Schema, SourceError> {
    let files = list(source, location, format)?;
    let mut fields: Vec<Field> = Vec::new();
    let mut failed = None;
    for file in files.iter().take(SAMPLE_FILES) {
        let Some(format) = format.or_else(|| Format::of(&file.path)) else {
            continue;
        };
        match schema_of(&file.path, format) {
            Ok(schema) => schema.fields().iter().for_each(|field| merge(&mut fields, field)),
            Err(cause) => {
                failed.get_or_insert(format!("{}: {cause}", file.path.display()));
            }
        }
    }
    let hint = "put files there first: their columns are the source's";
    match (fields.is_empty(), failed) {
        (false, _) => {}
        (true, None) => {
            let what = format!("no files match \"{location}\"");
            return Err(files_error(source, what, "Parquet, CSV, NDJSON or Avro files", hint));
        }
        (true, Some(cause)) => {
            return Err(files_error(source, cause, "at least one file that can be read", hint));
        }
    }
    // A column that was empty all over is text.
    let known = fields.into_iter().map(|field| match field.data_type() {
        DataType::Null => field.with_data_type(DataType::Utf8),
        _ => field,
    });
    Ok(Schema::new(known.collect::<Vec<_>>()))
}

/// A source's columns: the inferred ones, with the timestamp column as an instant.
pub fn file_columns(source: &str, inferred: &Schema, timestamp: &str) -> Result<SchemaRef, SourceError> {
    let names = || inferred.fields().iter().map(|field| field.name());
    let Some((at, field)) = inferred.column_with_name(timestamp) else {
        let all = names().map(String::as_str).collect::<Vec<_>>().join(", ");
        let hint = super::super::nearest::nearest(timestamp, names()).map_or_else(
            || "name the column that holds the event's time".into(),
            |near| format!("did you mean \"{near}\"?"),
        );
        let what = format!("no column \"{timestamp}\" to take the event time from");
        return Err(files_error(source, what, &format!("one of {all}"), &hint));
    };
    if let Some(reserved) = names().find(|name| META_COLUMNS.contains(&name.as_str())) {
        let what = format!("column \"{reserved}\" has a name of the platform's own columns");
        return Err(files_error(source, what, "any other name", "rename it in the files"));
    }
    let accepted =
        matches!(field.data_type(), DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Utf8);
    if !accepted {
        let what = format!("column \"{timestamp}\" is {}", field.data_type());
        let hint = "a number does not say its unit: write it as a timestamp or as text such as 2026-01-31T13:45:00Z";
        return Err(files_error(source, what, "a timestamp, a date or RFC 3339 text", hint));
    }
    let mut fields: Vec<Field> = inferred.fields().iter().map(|field| field.as_ref().clone()).collect();
    if let Some(field) = fields.get_mut(at) {
        *field = Field::new(timestamp, utc_micros(), false);
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn merge(fields: &mut Vec<Field>, new: &Field) {
    let data_type = normal_type(new.data_type());
    match fields.iter_mut().find(|field| field.name() == new.name()) {
        None => fields.push(Field::new(new.name(), data_type, true)),
        Some(known) => {
            let wider = match (known.data_type(), &data_type) {
                (DataType::Null, other) => other.clone(),
                (DataType::Int64, DataType::Float64) => DataType::Float64,
                _ => return,
            };
            known.set_data_type(wider);
        }
    }
}

fn schema_of(path: &Path, format: Format) -> Result<Schema, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    match format {
        Format::Parquet => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
            Ok(builder.schema().as_ref().clone())
        }
        Format::Csv => {
            let format = arrow::csv::reader::Format::default().with_header(true);
            let (schema, _) =
                format.infer_schema(BufReader::new(file), Some(SAMPLE_ROWS)).map_err(|e| e.to_string())?;
            if schema.fields().is_empty() { Err("the file is empty".into()) } else { Ok(schema) }
        }
        Format::NdJson => {
            let good = super::rows::json_lines(BufReader::new(file))
                .filter_map(|line| line.ok()?.value.ok())
                .take(SAMPLE_ROWS)
                .map(Ok);
            let schema = arrow::json::reader::infer_json_schema_from_iterator(good).map_err(|e| e.to_string())?;
            if schema.fields().is_empty() { Err("no line is a JSON object".into()) } else { Ok(schema) }
        }
        Format::Avro => {
            let reader = AvroReaderBuilder::new().build(BufReader::new(file)).map_err(|e| e.to_string())?;
            Ok(reader.schema().as_ref().clone())
        }
    }
}
