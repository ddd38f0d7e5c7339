//! A file that is either whole or not there: Parquet, or CSV.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::writer::SerializedFileWriter;

use crate::encoding::properties;
use crate::folder::{Folder, Part, Partitioning};
use crate::{Error, Result};

/// What a training set is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// With zstd, and what it was made from in the footer.
    #[default]
    Parquet,
    /// With a header. NULL is an empty field, and so is an empty text; an instant is RFC 3339.
    Csv,
}

/// Key-value pairs for the footers of files.
pub type Metadata = Vec<(String, String)>;

/// A file of either format, or a folder of Parquet files.
pub(crate) enum Output {
    Parquet(Box<ParquetFile>),
    Csv(Draft, PathBuf, Box<csv::Writer<File>>),
    Folder(Box<Folder>),
}

impl Output {
    /// CSV has no place for metadata.
    pub fn create(
        format: Format,
        path: &Path,
        schema: SchemaRef,
        partitioning: Option<Partitioning>,
        metadata: Metadata,
    ) -> Result<Self> {
        Ok(match (format, partitioning) {
            (Format::Parquet, None) => Self::Parquet(Box::new(ParquetFile::create(path, schema, metadata)?)),
            (Format::Parquet, Some(by)) => Self::Folder(Box::new(Folder::create(path, schema, by, metadata)?)),
            (Format::Csv, Some(_)) => {
                let cause = "a folder with a file for each value is of Parquet files";
                return Err(failed(path, format!("{cause}; hint: leave out --partition-by, or --format csv")));
            }
            (Format::Csv, None) => {
                if let Some(field) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
                    let cause = format!("column {} is {}, which CSV has no form for", field.name(), field.data_type());
                    return Err(failed(path, format!("{cause}; hint: --format parquet, or leave the column out")));
                }
                let (draft, file) = Draft::create(path)?;
                let mut writer = csv::WriterBuilder::new().with_header(true).build(file);
                // The header is there also where no row is.
                writer.write(&RecordBatch::new_empty(schema)).map_err(|e| failed(path, e))?;
                Self::Csv(draft, path.into(), Box::new(writer))
            }
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(file) => file.write(batch),
            Self::Folder(folder) => folder.write(batch),
            Self::Csv(_, path, file) => file.write(batch).map_err(|e| failed(path, e)),
        }
    }

    /// Completes it; returns its size in bytes, and its files if it is a folder.
    pub fn finish(self) -> Result<(u64, Vec<Part>)> {
        Ok(match self {
            Self::Parquet(file) => (file.finish()?.1, vec![]),
            Self::Csv(draft, path, file) => (draft.finish(&path, file.into_inner())?, vec![]),
            Self::Folder(folder) => {
                let parts = folder.finish()?;
                (parts.iter().map(|part| part.bytes).sum(), parts)
            }
        })
    }
}

/// Rows of a row group: its columns are encoded side by side, by as many threads as there are cores.
const GROUP: usize = 131_072;

/// Writes beside the file's name, and renames at the end. Dropped before [`ParquetFile::finish`], it leaves nothing.
pub struct ParquetFile {
    path: PathBuf,
    draft: Draft,
    /// Until there are rows by which to tell how to write.
    file: Option<File>,
    /// From then on; gone where something failed.
    writer: Option<(SerializedFileWriter<File>, ArrowRowGroupWriterFactory)>,
    schema: SchemaRef,
    metadata: Metadata,
    waiting: Vec<RecordBatch>,
    groups: usize,
    rows: u64,
}

impl ParquetFile {
    /// With `metadata` in its footer, and the number of rows.
    pub fn create(path: &Path, schema: SchemaRef, metadata: Metadata) -> Result<Self> {
        let (draft, file) = Draft::create(path)?;
        Ok(Self {
            path: path.into(),
            draft,
            file: Some(file),
            writer: None,
            schema,
            metadata,
            waiting: vec![],
            groups: 0,
            rows: 0,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.waiting.push(batch.clone());
        self.rows += batch.num_rows() as u64;
        match self.waiting.iter().map(RecordBatch::num_rows).sum::<usize>() {
            rows if rows >= GROUP => self.write_group(),
            _ => Ok(()),
        }
    }

    /// Completes the file; returns its rows, and its size in bytes.
    pub fn finish(mut self) -> Result<(u64, u64)> {
        self.write_group()?;
        self.metadata.push(("tidemark.rows".to_owned(), self.rows.to_string()));
        let (mut writer, _) = self.opened(&[])?;
        for (key, value) in self.metadata {
            writer.append_key_value_metadata(KeyValue::new(key, value));
        }
        let file = writer.into_inner().map_err(|e| failed(&self.path, e))?;
        Ok((self.rows, self.draft.finish(&self.path, file)?))
    }

    fn write_group(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.waiting);
        if batches.is_empty() {
            return Ok(());
        }
        let (mut writer, encoders) = self.opened(&batches)?;
        let index = self.groups;
        self.groups += 1;
        let mut write = || -> parquet::errors::Result<()> {
            let mut group = writer.next_row_group()?;
            encode(&encoders, index, &self.schema, &batches, |column| column.append_to_row_group(&mut group))?;
            group.close().map(drop)
        };
        write().map_err(|e| failed(&self.path, e))?;
        self.writer = Some((writer, encoders));
        Ok(())
    }

    /// Takes the writer, which is put back after use, unless that failed.
    fn opened(&mut self, rows: &[RecordBatch]) -> Result<(SerializedFileWriter<File>, ArrowRowGroupWriterFactory)> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let file = self.file.take().ok_or_else(|| failed(&self.path, "an earlier part of it wasn't written"))?;
        let writer = ArrowWriter::try_new(file, self.schema.clone(), Some(properties(&self.schema, rows)));
        writer.and_then(ArrowWriter::into_serialized_writer).map_err(|e| failed(&self.path, e))
    }
}

/// The columns of a row group, each encoded by one of several threads; `write` gets them in order, each as soon as it is there.
fn encode(
    encoders: &ArrowRowGroupWriterFactory,
    group: usize,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    mut write: impl FnMut(ArrowColumnChunk) -> parquet::errors::Result<()>,
) -> parquet::errors::Result<()> {
    let mut writers = encoders.create_column_writers(group)?.into_iter();
    let mut jobs = vec![];
    for (place, field) in schema.fields().iter().enumerate() {
        // A nested field has several leaves, each a column of the file.
        let leaves =
            batches.first().map_or(Ok(0), |b| compute_leaves(field, b.column(place)).map(|leaves| leaves.len()))?;
        jobs.push((place, writers.by_ref().take(leaves).collect::<Vec<_>>()));
    }
    let column = |(place, mut writers): (usize, Vec<ArrowColumnWriter>)| -> parquet::errors::Result<_> {
        for batch in batches {
            for (writer, leaf) in writers.iter_mut().zip(compute_leaves(schema.field(place), batch.column(place))?) {
                writer.write(&leaf)?;
            }
        }
        let chunks = writers.into_iter().map(ArrowColumnWriter::close);
        Ok((place, chunks.collect::<parquet::errors::Result<Vec<_>>>()?))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let (jobs, (done, encoded)) = (Mutex::new(jobs.into_iter()), channel());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, jobs, column) = (done.clone(), &jobs, &column);
            scope.spawn(move || {
                // A lock is poisoned by a panic, which the scope passes on.
                while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.next()) {
                    if done.send(column(job)).is_err() {
                        // Another column failed.
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut waiting, mut next) = (BTreeMap::new(), 0);
        for column in encoded {
            let (place, chunks) = column?;
            waiting.insert(place, chunks);
            while let Some(chunks) = waiting.remove(&next) {
                chunks.into_iter().try_for_each(&mut write)?;
                next += 1;
            }
        }
        Ok(())
    })
}

/// The unfinished file; gone when dropped, unless it was renamed.
#[derive(Debug)]
pub(crate) struct Draft(PathBuf);

impl Draft {
    /// Makes the folders above `path` where they are missing.
    fn create(path: &Path) -> Result<(Self, File)> {
        let failed = |cause: String| Error::File { action: "create", path: path.into(), cause };
        let name = path.file_name().ok_or_else(|| failed("expected the name of a file".into()))?;
        if path.is_dir() {
            return Err(failed(
                "it is a folder; expected the name of a file; hint: --partition-by makes a folder".into(),
            ));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|e| failed(format!("folder {}: {e}", folder.display())))?;
        }
        let draft = Self(path.with_file_name(format!(".{}.part", name.to_string_lossy())));
        let file = File::create(&draft.0).map_err(|e| failed(e.to_string()))?;
        Ok((draft, file))
    }

    /// Makes the file durable and gives it its name; returns its size in bytes.
    fn finish(self, path: &Path, file: File) -> Result<u64> {
        file.sync_all().map_err(|e| failed(path, e))?;
        let bytes = file.metadata().map_err(|e| failed(path, e))?.len();
        fs::rename(&self.0, path).map_err(|e| failed(path, e))?;
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn failed(path: &Path, cause: impl ToString) -> Error {
    Error::File { action: "write", path: path.into(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn numbers() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_an_abandoned_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/n.parquet");
        let mut file = ParquetFile::create(&path, numbers().schema(), vec![]).unwrap();
        file.write(&numbers()).unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path().join("below")).unwrap().count(), 0);

        let mut file = ParquetFile::create(&path, numbers().schema(), vec![]).unwrap();
        file.write(&numbers()).unwrap();
        assert!(!path.exists());
        let (rows, bytes) = file.finish().unwrap();
        assert_eq!((fs::metadata(&path).unwrap().len(), rows), (bytes, 2));
        assert_eq!(fs::read_dir(folder.path().join("below")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = ParquetFile::create(folder.path(), numbers().schema(), vec![]).err().unwrap().to_string();
        assert!(error.contains("it is a folder"), "{error}");
    }
}
