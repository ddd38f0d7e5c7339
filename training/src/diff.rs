//! What makes two training sets different.
//!
//! Guarantee: every difference in what they were made from, in columns, in the number of rows and in values is found, and each
//! column's first one is shown; values are equal if they are so to the last bit. Rows are compared by their place.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::{Error, Result};

/// Rows that are compared at once.
const ROWS: usize = 8192;

/// A difference, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// What the footers say: the same key, and what each file has there.
    MadeFrom {
        key: String,
        a: Option<String>,
        b: Option<String>,
    },
    /// A column that only one of them has, or has in another type.
    Column {
        name: String,
        a: Option<String>,
        b: Option<String>,
    },
    Rows {
        a: u64,
        b: u64,
    },
    /// Values of a column, and the first of them: its row, from 1.
    Values {
        column: String,
        rows: u64,
        first: u64,
        a: String,
        b: String,
    },
}

/// Compares two Parquet files.
pub fn diff(a: &Path, b: &Path) -> Result<Vec<Difference>> {
    let (a, b) = (Side::open(a)?, Side::open(b)?);
    let mut found = vec![];
    // How many rows there are is compared by itself.
    let keys = a.made_from.keys().chain(b.made_from.keys()).filter(|key| *key != "tidemark.rows");
    let mut keys: Vec<&String> = keys.collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (a, b) = (a.made_from.get(key), b.made_from.get(key));
        if a != b {
            found.push(Difference::MadeFrom { key: key.clone(), a: a.cloned(), b: b.cloned() });
        }
    }
    let mut shared = vec![];
    let names = a.schema.fields().iter().chain(b.schema.fields()).map(|field| field.name());
    for name in names {
        let type_in = |side: &Side| side.schema.field_with_name(name).ok().map(|field| field.data_type().to_string());
        let (a, b) = (type_in(&a), type_in(&b));
        let known = shared.contains(name)
            || found.iter().any(|d| matches!(d, Difference::Column { name: known, .. } if known == name));
        match known {
            true => {}
            false if a == b => shared.push(name.clone()),
            false => found.push(Difference::Column { name: name.clone(), a, b }),
        }
    }
    if a.rows != b.rows {
        found.push(Difference::Rows { a: a.rows, b: b.rows });
        return Ok(found);
    }
    found.extend(values(a, b, &shared)?);
    Ok(found)
}

/// A file, open.
struct Side {
    path: PathBuf,
    schema: SchemaRef,
    made_from: BTreeMap<String, String>,
    rows: u64,
    batches: ParquetRecordBatchReader,
}

impl Side {
    fn open(path: &Path) -> Result<Self> {
        let failed = |cause: String| Error::File { action: "read", path: path.into(), cause };
        let file = File::open(path).map_err(|e| failed(e.to_string()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file);
        let builder = builder.map_err(|e| failed(format!("{e}; expected a training set in Parquet")))?;
        let footer = builder.metadata().file_metadata();
        let rows = u64::try_from(footer.num_rows()).unwrap_or_default();
        let pairs = footer.key_value_metadata().into_iter().flatten();
        let pairs = pairs.filter(|pair| pair.key.starts_with("tidemark."));
        let made_from = pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect();
        let schema = builder.schema().clone();
        let batches = builder.with_batch_size(ROWS).build().map_err(|e| failed(e.to_string()))?;
        Ok(Self { path: path.into(), schema, made_from, rows, batches })
    }

    /// The next rows, as many as there are up to [`ROWS`]: row groups end where they like.
    fn next(&mut self, rest: &mut Option<RecordBatch>) -> Result<Option<RecordBatch>> {
        let failed = |cause: String| Error::File { action: "read", path: self.path.clone(), cause };
        let mut held: Vec<RecordBatch> = rest.take().into_iter().collect();
        while held.iter().map(RecordBatch::num_rows).sum::<usize>() < ROWS {
            match self.batches.next() {
                Some(batch) => held.push(batch.map_err(|e| failed(e.to_string()))?),
                None => break,
            }
        }
        let Some(first) = held.first() else { return Ok(None) };
        let rows = concat_batches(&first.schema(), &held).map_err(|e| failed(e.to_string()))?;
        let n = rows.num_rows().min(ROWS);
        *rest = (n < rows.num_rows()).then(|| rows.slice(n, rows.num_rows() - n));
        Ok((n > 0).then(|| rows.slice(0, n)))
    }
}

/// Columns whose values differ.
fn values(mut a: Side, mut b: Side, columns: &[String]) -> Result<Vec<Difference>> {
    let mut found: BTreeMap<usize, (u64, u64, String, String)> = BTreeMap::new();
    let (mut rest_a, mut rest_b, mut row) = (None, None, 0u64);
    while let (Some(rows_a), Some(rows_b)) = (a.next(&mut rest_a)?, b.next(&mut rest_b)?) {
        for (place, name) in columns.iter().enumerate() {
            let (Some(x), Some(y)) = (rows_a.column_by_name(name), rows_b.column_by_name(name)) else { continue };
            if x.to_data() == y.to_data() {
                continue;
            }
            for at in (0..x.len().min(y.len())).filter(|at| x.slice(*at, 1).to_data() != y.slice(*at, 1).to_data()) {
                let first = || (0, row + at as u64 + 1, shown(x, at), shown(y, at));
                found.entry(place).or_insert_with(first).0 += 1;
            }
        }
        row += rows_a.num_rows() as u64;
    }
    let named = |(place, (rows, first, a, b)): (usize, (u64, u64, String, String))| {
        let column = columns.get(place)?.clone();
        Some(Difference::Values { column, rows, first, a, b })
    };
    Ok(found.into_iter().filter_map(named).collect())
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    array_value_to_string(column, row).unwrap_or_else(|_| "a value".to_owned())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let or = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::MadeFrom { key, a, b } => {
                let key = key.strip_prefix("tidemark.").unwrap_or(key);
                match (a, b) {
                    // Of two texts of many lines, the first line that differs says enough.
                    (Some(a), Some(b)) if a.contains('\n') || b.contains('\n') => {
                        let lines = a.lines().map(Some).chain(std::iter::repeat(None));
                        let mut lines = lines.zip(b.lines().map(Some).chain(std::iter::repeat(None))).zip(1..);
                        let count = a.lines().count().max(b.lines().count());
                        match lines.by_ref().take(count).find(|((a, b), _)| a != b) {
                            Some(((a, b), line)) => write!(
                                f,
                                "made from {key}, line {line}: A `{}`, B `{}`",
                                a.unwrap_or_default().trim(),
                                b.unwrap_or_default().trim()
                            ),
                            None => write!(f, "made from {key}: other line endings"),
                        }
                    }
                    _ => write!(f, "made from {key}: A {}, B {}", or(a), or(b)),
                }
            }
            Self::Column { name, a, b } => write!(f, "column {name}: A {}, B {}", or(a), or(b)),
            Self::Rows { a, b } => {
                write!(f, "rows: A {a}, B {b}; values are compared by their place, so not at all here")
            }
            Self::Values { column, rows, first, a, b } => {
                let differ = if *rows == 1 { "row differs" } else { "rows differ" };
                write!(f, "column {column}: {rows} {differ}; the first is row {first}: A {a}, B {b}")
            }
        }
    }
}
