//! A training set as a folder, with a file for each value that its rows are partitioned by.
//!
//! ```text
//! <out>/date=2026-01-31/part-0.parquet     hive style: the column is in the folder's name, and not in the file
//! ```
//!
//! Guarantees: the folder appears under its name when all of its files are whole and durable, in one rename, and never in place of
//! another one. Rows of a value are in the spine's order. One file is open at a time, since rows come value by value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::partition;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::util::display::array_value_to_string;
use tidemark_engine::batch::PartitionBy;

use crate::output::{Metadata, ParquetFile, failed};
use crate::{Error, Result};

/// The file in each folder of a value.
pub(crate) const PART: &str = "part-0.parquet";

/// A file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Below the folder.
    pub path: PathBuf,
    pub rows: u64,
    pub bytes: u64,
}

/// What the rows of a set are told apart by.
#[derive(Debug, Clone)]
pub(crate) struct Partitioning {
    pub by: PartitionBy,
    /// The spine's column with the instants.
    pub timestamp: String,
}

impl Partitioning {
    /// The names of the folders of rows, each for a stretch of them: its first row, and the one after its last.
    pub fn stretches(&self, rows: &RecordBatch) -> Result<Vec<(String, usize, usize)>, String> {
        let values = self.by.values(rows, &self.timestamp);
        let values = values.ok_or_else(|| format!("no column to partition by {}", self.by))?;
        let stretches = partition(std::slice::from_ref(&values)).map_err(|e| e.to_string())?.ranges().into_iter();
        stretches.map(|range| Ok((self.name(&values, range.start)?, range.start, range.end))).collect()
    }

    fn name(&self, values: &ArrayRef, row: usize) -> Result<String, String> {
        let column = self.by.label();
        let refused = |what| {
            let expected = "expected a value that names a folder";
            let hint = "leave such rows out of the spine, or partition by another column";
            Err(format!("column `{column}` is {what} in a row; {expected}; hint: {hint}"))
        };
        if values.is_null(row) {
            return refused("NULL");
        }
        let value = array_value_to_string(values, row).map_err(|e| e.to_string())?;
        if value.is_empty() {
            return refused("an empty text");
        }
        Ok(match self.by {
            // A month without its day.
            PartitionBy::Month => {
                format!("month={}", value.rsplit_once('-').map_or(value.as_str(), |(month, _)| month))
            }
            _ => format!("{}={}", escaped(column), escaped(&value)),
        })
    }
}

/// The types of columns whose values name folders.
fn names_folders(of: &DataType) -> bool {
    of.is_integer() || matches!(of, DataType::Utf8 | DataType::Boolean | DataType::Date32)
}

/// As Hive writes values into paths.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^'
            | '\u{0}'..='\u{1f}'
            | '\u{7f}' => {
                escaped.push_str(&format!("%{:02X}", c as u32));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The reverse of [`escaped`].
pub(crate) fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The folder on its way. Dropped before [`Folder::finish`], it leaves nothing.
pub(crate) struct Folder {
    path: PathBuf,
    draft: Draft,
    partitioning: Partitioning,
    /// The column that is in the folders' names, and not in the files.
    column: Option<usize>,
    schema: SchemaRef,
    metadata: Metadata,
    open: Option<(String, ParquetFile)>,
    parts: Vec<Part>,
}

impl Folder {
    pub fn create(path: &Path, schema: SchemaRef, partitioning: Partitioning, mut metadata: Metadata) -> Result<Self> {
        let label = partitioning.by.label();
        let column = match &partitioning.by {
            PartitionBy::Column(name) => Some(schema.index_of(name).map_err(|e| failed(path, e))?),
            by if schema.index_of(label).is_ok() => {
                let cause = format!("the set has a column `{label}`, and so have folders by {by}");
                return Err(failed(path, format!("{cause}; hint: give the column another name")));
            }
            _ => None,
        };
        let of = column.map_or(&DataType::Date32, |place| schema.field(place).data_type());
        if !names_folders(of) {
            let cause = format!("column `{label}` is {of}, whose values name no folders");
            let expected = "expected an integer, a text, a boolean or a date";
            return Err(failed(path, format!("{cause}; {expected}; hint: --partition-by day or month")));
        }
        metadata.push(("tidemark.partition_by".to_owned(), partitioning.by.to_string()));
        if column.is_some() {
            metadata.push((TYPE.to_owned(), of.to_string()));
        }
        let places: Vec<usize> = (0..schema.fields().len()).filter(|place| Some(*place) != column).collect();
        let schema = SchemaRef::new(schema.project(&places).map_err(|e| failed(path, e))?);
        let draft = Draft::create(path)?;
        Ok(Self { path: path.into(), draft, partitioning, column, schema, metadata, open: None, parts: vec![] })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for (name, from, to) in self.partitioning.stretches(batch).map_err(|e| failed(&self.path, e))? {
            let mut rows = batch.slice(from, to - from);
            if let Some(column) = self.column {
                rows.remove_column(column);
            }
            let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec());
            let rows = rows.map_err(|e| failed(&self.path, e))?;
            match &mut self.open {
                Some((open, file)) if *open == name => file.write(&rows)?,
                _ => {
                    self.close()?;
                    let mut file = self.start(&name)?;
                    file.write(&rows)?;
                    self.open = Some((name, file));
                }
            }
        }
        Ok(())
    }

    /// Puts the folder in its place.
    pub fn finish(mut self) -> Result<Vec<Part>> {
        self.close()?;
        if self.parts.is_empty() {
            let cause = "the set has no rows, and a folder without files has no columns";
            return Err(failed(&self.path, format!("{cause}; hint: leave out --partition-by")));
        }
        self.draft.finish(&self.path)?;
        Ok(self.parts)
    }

    fn start(&self, name: &str) -> Result<ParquetFile> {
        let path = self.draft.path.join(name).join(PART);
        if path.exists() {
            let cause = format!("{name} is the name of two values here; hint: partition by another column");
            return Err(failed(&self.path, cause));
        }
        ParquetFile::create(&path, self.schema.clone(), self.metadata.clone())
    }

    fn close(&mut self) -> Result<()> {
        if let Some((name, file)) = self.open.take() {
            let (rows, bytes) = file.finish()?;
            sync(&self.draft.path.join(&name))?;
            self.parts.push(Part { path: Path::new(&name).join(PART), rows, bytes });
        }
        Ok(())
    }
}

/// In the footer: the type of the column that is in the folders' names.
pub(crate) const TYPE: &str = "tidemark.partition_type";

/// A folder beside the one that is to be; gone when dropped.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    /// Held while it is written: of two who write it, one is refused.
    _lock: File,
}

impl Draft {
    fn create(path: &Path) -> Result<Self> {
        let failed = |cause: String| Error::File { action: "create", path: path.into(), cause };
        let name = path.file_name().ok_or_else(|| failed("expected the name of a folder".into()))?;
        check_free(path)?;
        let draft = path.with_file_name(format!(".{}.part", name.to_string_lossy()));
        let make = || -> std::io::Result<File> {
            fs::create_dir_all(&draft)?;
            File::open(&draft)
        };
        let lock = make().map_err(|e| failed(e.to_string()))?;
        lock.try_lock().map_err(|_| failed("another run is writing it".into()))?;
        let draft = Self { path: draft, _lock: lock };
        // What a run left that was killed.
        let clear = || -> std::io::Result<()> {
            for entry in fs::read_dir(&draft.path)? {
                let path = entry?.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
            Ok(())
        };
        clear().map_err(|e| failed(e.to_string()))?;
        Ok(draft)
    }

    fn finish(self, path: &Path) -> Result<()> {
        sync(&self.path)?;
        check_free(path)?;
        // Never in place of a folder that has anything in it.
        fs::rename(&self.path, path).map_err(|e| failed(path, e))?;
        sync(path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Two sets in one folder would be read as one.
fn check_free(path: &Path) -> Result<()> {
    let taken = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().map(|_| "there is something in it"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => Some("it is no folder"),
    };
    let Some(taken) = taken else { return Ok(()) };
    let cause =
        format!("{taken}; expected a folder that is empty or isn't there; hint: remove it, or write to another one");
    Err(Error::File { action: "create", path: path.into(), cause })
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_the_names_of_folders() {
        for value in ["US", "a/b", "100%", "x=y", "%2F", "ä ö", "\u{7f}\n", ".."] {
            assert_eq!(unescaped(&escaped(value)), value);
            assert!(!escaped(value).contains(['/', '=']));
        }
    }
}
