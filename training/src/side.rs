//! A training set that is read again: a Parquet file, or a folder of them with a column in its folders' names.
//!
//! Guarantee: a folder reads as the columns that were written, and its files say the same of what they were made from, or it is an
//! error. A few files are open at a time, however many there are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tidemark_engine::batch::PartitionBy;

use crate::folder::{PART, Partitioning, TYPE, unescaped};
use crate::{Error, Result};

/// Rows that are read at once.
pub(crate) const ROWS: usize = 8192;

/// Files of a folder that are open at once.
const OPEN: usize = 16;

/// One of two that are compared.
#[derive(Debug)]
pub(crate) struct Side {
    pub schema: SchemaRef,
    pub made_from: BTreeMap<String, String>,
    /// Of a folder.
    pub partitioning: Option<Partitioning>,
    pub parts: Vec<Part>,
}

/// A file.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    /// Of the folder that it is in; empty if it is the whole set.
    name: String,
    rows: u64,
}

type Builder = ParquetRecordBatchReaderBuilder<File>;

impl Side {
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let (schema, made_from, rows) = footer(path)?;
            let part = Part { path: path.into(), name: String::new(), rows };
            return Ok(Self { schema, made_from, partitioning: None, parts: vec![part] });
        }
        let failed = |cause: &str| unread(path, cause);
        let entries = fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.map_err(|e| failed(&e.to_string()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut side: Option<Self> = None;
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join(PART);
            if name.starts_with('.') || !file.exists() {
                continue;
            }
            let (schema, made_from, rows) = footer(&file)?;
            let part = Part { path: file, name, rows };
            match &mut side {
                None => side = Some(Self::folder(path, &schema, made_from, part)?),
                Some(side) if side.is_of(&schema, &made_from) => side.parts.push(part),
                Some(_) => return Err(unread(&part.path, "it is of another training set than the files before it")),
            }
        }
        side.ok_or_else(|| failed("no NAME=VALUE/part-0.parquet in it; expected a training set in Parquet"))
    }

    fn folder(path: &Path, schema: &Schema, made_from: BTreeMap<String, String>, part: Part) -> Result<Self> {
        let said = |key: &str| made_from.get(key).ok_or_else(|| unread(&part.path, format!("its footer has no {key}")));
        let by = PartitionBy::named(said("tidemark.partition_by")?);
        let timestamp = said("tidemark.timestamp")?.clone();
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        if let PartitionBy::Column(name) = &by {
            let of: DataType = said(TYPE)?.parse().map_err(|e| unread(path, format!("its footer: {e}")))?;
            fields.push(Field::new(name, of, true));
        }
        let partitioning = Some(Partitioning { by, timestamp });
        Ok(Self { schema: Schema::new(fields).into(), made_from, partitioning, parts: vec![part] })
    }

    fn is_of(&self, schema: &Schema, made_from: &BTreeMap<String, String>) -> bool {
        let same = |(key, value): (&String, &String)| key == "tidemark.rows" || made_from.get(key) == Some(value);
        let fields = schema.fields();
        self.made_from.len() == made_from.len()
            && self.made_from.iter().all(same)
            && self.schema.fields().iter().take(fields.len()).eq(fields.iter())
    }

    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// How many rows there are of each value.
    pub fn rows_by(&self, partitioning: &Partitioning) -> Result<BTreeMap<String, u64>> {
        if self.partitioning.is_some() {
            return Ok(self.parts.iter().map(|part| (part.name.clone(), part.rows)).collect());
        }
        let mut rows = BTreeMap::new();
        for part in &self.parts {
            let builder = builder(&part.path)?;
            let wanted = match &partitioning.by {
                PartitionBy::Column(name) => name,
                _ => &partitioning.timestamp,
            };
            let only = ProjectionMask::columns(builder.parquet_schema(), [wanted.as_str()]);
            let read = builder.with_projection(only).build().map_err(|e| unread(&part.path, e))?;
            for batch in read {
                let batch = batch.map_err(|e| unread(&part.path, e))?;
                for (name, from, to) in partitioning.stretches(&batch).map_err(|e| unread(&part.path, e))? {
                    *rows.entry(name).or_default() += (to - from) as u64;
                }
            }
        }
        Ok(rows)
    }

    /// The parts of this one that rows of another one are in.
    pub fn stretches(&self, rows: &RecordBatch) -> Result<Vec<(String, usize, usize)>> {
        match (&self.partitioning, self.parts.first()) {
            (Some(partitioning), Some(part)) => partitioning.stretches(rows).map_err(|e| unread(&part.path, e)),
            _ => Ok(vec![(String::new(), 0, rows.num_rows())]),
        }
    }
}

fn unread(path: &Path, cause: impl ToString) -> Error {
    Error::File { action: "read", path: path.into(), cause: cause.to_string() }
}

fn builder(path: &Path) -> Result<Builder> {
    let file = File::open(path).map_err(|e| unread(path, e))?;
    Builder::try_new(file).map_err(|e| unread(path, format!("{e}; expected a training set in Parquet")))
}

/// The columns of a file, what it says of itself, and its rows.
fn footer(path: &Path) -> Result<(SchemaRef, BTreeMap<String, String>, u64)> {
    let builder = builder(path)?;
    let footer = builder.metadata().file_metadata();
    let rows = u64::try_from(footer.num_rows()).unwrap_or_default();
    let pairs = footer.key_value_metadata().into_iter().flatten();
    let pairs = pairs.filter(|pair| pair.key.starts_with("tidemark."));
    let made_from = pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect();
    Ok((builder.schema().clone(), made_from, rows))
}

/// Rows of a file, in order.
pub(crate) struct Rows {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    rest: Option<RecordBatch>,
    /// The column that is in the folder's name: where, and its value.
    column: Option<(Field, String)>,
}

impl Rows {
    /// From a row on.
    pub fn open(side: &Side, part: &Part, from: usize) -> Result<Self> {
        let builder = builder(&part.path)?.with_batch_size(ROWS).with_offset(from);
        let batches = builder.build().map_err(|e| unread(&part.path, e))?;
        let named = side.partitioning.as_ref().map(|partitioning| &partitioning.by);
        let column = match named {
            Some(PartitionBy::Column(name)) => {
                let field = side.schema.field_with_name(name).map_err(|e| unread(&part.path, e))?.clone();
                let value = part.name.split_once('=').map(|(_, value)| unescaped(value)).unwrap_or_default();
                Some((field, value))
            }
            _ => None,
        };
        Ok(Self { path: part.path.clone(), batches, rest: None, column })
    }

    /// The next rows, so many at most; none at the end.
    pub fn next(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        let rows = match self.rest.take() {
            Some(rows) => rows,
            None => match self.batches.next() {
                Some(rows) => rows.and_then(|rows| self.whole(&rows)).map_err(|e| unread(&self.path, e))?,
                None => return Ok(None),
            },
        };
        let n = rows.num_rows().min(most);
        self.rest = (n < rows.num_rows()).then(|| rows.slice(n, rows.num_rows() - n));
        Ok(Some(rows.slice(0, n)))
    }

    /// With the column that is in the folder's name.
    fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some((field, value)) = &self.column else { return Ok(rows.clone()) };
        let values = StringArray::from(vec![value.as_str(); rows.num_rows()]);
        let fields = rows.schema().fields().iter().cloned().chain([field.clone().into()]).collect::<Vec<_>>();
        let columns = rows.columns().iter().cloned().chain([cast(&values, field.data_type())?]).collect();
        RecordBatch::try_new(Schema::new(fields).into(), columns)
    }
}

/// One that follows another's order: where each of its files is.
pub(crate) struct Behind<'a> {
    side: &'a Side,
    read: BTreeMap<String, usize>,
    open: BTreeMap<String, Rows>,
}

impl<'a> Behind<'a> {
    pub fn new(side: &'a Side) -> Self {
        Self { side, read: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// The next rows of a part, so many at most.
    pub fn next(&mut self, name: &str, most: usize) -> Result<Option<RecordBatch>> {
        let read = self.read.entry(name.to_owned()).or_default();
        if !self.open.contains_key(name) {
            let Some(part) = self.side.parts.iter().find(|part| part.name == name) else { return Ok(None) };
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(name.to_owned(), Rows::open(self.side, part, *read)?);
        }
        let rows = self.open.get_mut(name).map_or(Ok(None), |rows| rows.next(most))?;
        *read += rows.as_ref().map_or(0, RecordBatch::num_rows);
        Ok(rows)
    }
}
