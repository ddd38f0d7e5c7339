//! The rows of one file, a chunk at a time, whatever its format.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::ReaderBuilder as JsonReaderBuilder;
use arrow_avro::reader::ReaderBuilder as AvroReaderBuilder;
use bytes::Bytes;
use serde_json::Value as Json;

use super::convert::{Chunk, RawRows, RowReject, convert, words};
use super::location::Format;
use super::parquet_rows;
use super::reader::row_json;

/// Rows that a chunk spans at most.
const CHUNK_ROWS: usize = 8192;

/// An open file: chunks of rows, then an error that says why the rest can't be read, or the end.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Chunk, String>> + Send>;

/// Opens a stretch of a file at one of its rows. An error means that none of it can be read. Of a columnar file, those columns
/// that are not in `only` may come as NULLs, if no row is refused for what is in them.
pub(super) fn open(
    path: &Path,
    format: Option<Format>,
    columns: &SchemaRef,
    only: Option<&BTreeSet<String>>,
    bytes: Range<u64>,
    row: u32,
) -> Result<Rows, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    if bytes.end == 0 {
        return Err("the file is empty".into());
    }
    let columns = Arc::clone(columns);
    let format = format.or_else(|| Format::of(path));
    // A stretch that is not a file's first has its header there all the same.
    let header = if format == Some(Format::Csv) { csv_header(&mut file, bytes.end)? } else { Vec::new() };
    file.seek(SeekFrom::Start(bytes.start)).map_err(|e| e.to_string())?;
    match format {
        Some(Format::Parquet) => parquet_rows::open(file, columns, only, row),
        Some(Format::Avro) => avro(file.take(bytes.end), columns, row),
        Some(Format::Csv) => csv(file.take(bytes.end - bytes.start), &header, bytes.start == 0, columns, row),
        Some(Format::NdJson) => Ok(ndjson(file.take(bytes.end - bytes.start), columns, row)),
        None => Err("the file has no known extension".into()),
    }
}

fn avro(file: Take<File>, columns: SchemaRef, from: u32) -> Result<Rows, String> {
    let reader = AvroReaderBuilder::new().with_batch_size(CHUNK_ROWS).build(BufReader::new(file));
    let reader = reader.map_err(|e| e.to_string())?;
    let mut row = 0u32;
    let batches = reader.filter_map(move |batch| {
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => return Some(Err(e.to_string())),
        };
        let skip = from.saturating_sub(row).min(batch.num_rows() as u32);
        row += skip;
        let rest = batch.slice(skip as usize, batch.num_rows() - skip as usize);
        (rest.num_rows() > 0).then(|| columnar(rest, &mut row, &columns))
    });
    Ok(Box::new(batches))
}

/// A batch of a columnar format: its rows have no text of their own, so a reject's payload is the row as JSON.
pub(super) fn columnar(batch: RecordBatch, next: &mut u32, columns: &SchemaRef) -> Result<Chunk, String> {
    let (first, rows) = (*next, batch.num_rows() as u32);
    *next += rows;
    let raw = RawRows { first, rows, batch, numbers: (first..first + rows).collect(), rejects: Vec::new() };
    convert(raw, columns, row_json)
}

/// The names of the columns.
fn csv_header(file: &mut File, end: u64) -> Result<Vec<String>, String> {
    let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(file.take(end));
    Ok(reader.headers().map_err(|e| e.to_string())?.iter().map(str::to_owned).collect())
}

/// `first`: begins with the header.
fn csv(file: Take<File>, header: &[String], first: bool, columns: SchemaRef, from: u32) -> Result<Rows, String> {
    let reader = ::csv::ReaderBuilder::new().flexible(true).has_headers(first).from_reader(file);
    let fields: Vec<Field> = header.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut records = reader.into_byte_records().zip(0u32..).skip(from as usize).peekable();
    Ok(Box::new(std::iter::from_fn(move || {
        let first = records.peek()?.1;
        let mut values: Vec<Vec<Option<String>>> = vec![Vec::new(); schema.fields().len()];
        let (mut numbers, mut rejects, mut rows, mut texts) = (Vec::new(), Vec::new(), 0, Vec::new());
        for (record, number) in records.by_ref().take(CHUNK_ROWS) {
            rows += 1;
            let record = match record {
                Ok(record) => record,
                Err(e) => return Some(Err(e.to_string())),
            };
            let text = Bytes::from(record.iter().collect::<Vec<_>>().join(&b","[..]));
            let line = record.position().map_or(0, ::csv::Position::line);
            let refuse = |reason: String| RowReject { number, payload: text.clone(), reason };
            if record.len() != values.len() {
                let expected = values.len();
                rejects.push(refuse(format!("line {line}: {} values, expected {expected}", record.len())));
                continue;
            }
            let Ok(strings) = record.iter().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>() else {
                rejects.push(refuse(format!("line {line}: not UTF-8 text")));
                continue;
            };
            for (column, value) in values.iter_mut().zip(strings) {
                column.push((!value.is_empty()).then(|| value.to_owned()));
            }
            numbers.push(number);
            texts.push(text);
        }
        let arrays = values.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options);
        Some(batch.map_err(|e| e.to_string()).and_then(|batch| {
            let raw = RawRows { first, rows, batch, numbers, rejects };
            convert(raw, &columns, |_, row| texts.get(row).cloned().unwrap_or_default())
        }))
    })))
}

/// A line that is not blank.
pub(super) struct JsonLine {
    pub text: Bytes,
    /// The object, or why it is none.
    pub value: Result<Json, String>,
}

/// The lines of an NDJSON file that are not blank; an error ends them.
pub(super) fn json_lines(file: impl BufRead) -> impl Iterator<Item = Result<JsonLine, String>> {
    let lines = file.split(b'\n').filter(|line| !matches!(line, Ok(line) if line.trim_ascii().is_empty()));
    lines.map(|line| {
        let text = Bytes::from(line.map_err(|e| e.to_string())?);
        let value = match serde_json::from_slice::<Json>(&text) {
            Ok(value @ Json::Object(_)) => Ok(value),
            Ok(_) => Err("not a JSON object".into()),
            Err(e) => Err(format!("not JSON: {e}")),
        };
        Ok(JsonLine { text, value })
    })
}

fn ndjson(file: Take<File>, columns: SchemaRef, from: u32) -> Rows {
    // Instants are read as text, so that a number is refused and not taken for some unit.
    let raw_fields = columns.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(_, _) => Field::new(field.name(), DataType::Utf8, true),
        other => Field::new(field.name(), other.clone(), true),
    });
    let schema = Arc::new(Schema::new(raw_fields.collect::<Vec<_>>()));
    let mut lines = json_lines(BufReader::new(file)).zip(0u32..).skip(from as usize).peekable();
    Box::new(std::iter::from_fn(move || {
        let first = lines.peek()?.1;
        let (mut good, mut rejects, mut rows) = (Vec::new(), Vec::new(), 0);
        for (line, number) in lines.by_ref().take(CHUNK_ROWS) {
            rows += 1;
            match line {
                Ok(JsonLine { text, value: Ok(value) }) => match fraction(&value, schema.fields()) {
                    None => good.push((number, text, value)),
                    Some(reason) => rejects.push(RowReject { number, payload: text, reason }),
                },
                Ok(JsonLine { text, value: Err(reason) }) => rejects.push(RowReject { number, payload: text, reason }),
                Err(e) => return Some(Err(e)),
            }
        }
        Some(decode_lines(&schema, good, &mut rejects).and_then(|(batch, good)| {
            let numbers = good.iter().map(|(number, _, _)| *number).collect();
            let raw = RawRows { first, rows, batch, numbers, rejects };
            convert(raw, &columns, |_, row| good.get(row).map(|(_, text, _)| text.clone()).unwrap_or_default())
        }))
    }))
}

/// Why an object is refused that has a fraction where a whole number is expected: Arrow would cut the fraction off.
fn fraction(object: &Json, fields: &Fields) -> Option<String> {
    fields.iter().find_map(|field| {
        let value = object.get(field.name())?;
        let part = cut_fraction(value, field.data_type())?;
        Some(format!("\"{}\" is {value}, expected {}", field.name(), words(part)))
    })
}

/// The type that would cut a fraction off a value, or off a part of it.
fn cut_fraction<'a>(value: &Json, data_type: &'a DataType) -> Option<&'a DataType> {
    match (value, data_type) {
        (Json::Number(number), whole) if whole.is_integer() => number.is_f64().then_some(whole),
        (Json::Array(items), DataType::List(item)) => {
            items.iter().find_map(|value| cut_fraction(value, item.data_type()))
        }
        (Json::Object(_), DataType::Struct(fields)) => {
            fields.iter().find_map(|field| cut_fraction(value.get(field.name())?, field.data_type()))
        }
        _ => None,
    }
}

type GoodLine = (u32, Bytes, Json);

/// Objects as columns; the ones whose values have the wrong type become rejects.
fn decode_lines(
    schema: &SchemaRef,
    lines: Vec<GoodLine>,
    rejects: &mut Vec<RowReject>,
) -> Result<(RecordBatch, Vec<GoodLine>), String> {
    let decode = |lines: &[GoodLine]| -> Result<RecordBatch, String> {
        let mut decoder = JsonReaderBuilder::new(Arc::clone(schema))
            .with_batch_size(lines.len().max(1))
            .build_decoder()
            .map_err(|e| e.to_string())?;
        let values: Vec<&Json> = lines.iter().map(|(_, _, value)| value).collect();
        decoder.serialize(&values).map_err(|e| e.to_string())?;
        let batch = decoder.flush().map_err(|e| e.to_string())?;
        Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema))))
    };
    if let Ok(batch) = decode(&lines) {
        return Ok((batch, lines));
    }
    // One by one only when a line of the chunk is wrong.
    let (mut batches, mut good) = (Vec::new(), Vec::new());
    for line in lines {
        match decode(std::slice::from_ref(&line)) {
            Ok(batch) => {
                batches.push(batch);
                good.push(line);
            }
            Err(reason) => rejects.push(RowReject { number: line.0, payload: line.1, reason }),
        }
    }
    let batch = arrow::compute::concat_batches(schema, &batches).map_err(|e| e.to_string())?;
    Ok((batch, good))
}
