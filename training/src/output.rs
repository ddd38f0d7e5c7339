//! A Parquet file that is either whole or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;

use crate::{Error, Result};

/// Writes beside the file's name, and renames at the end. Dropped before [`ParquetFile::finish`], it leaves nothing.
#[derive(Debug)]
pub struct ParquetFile {
    path: PathBuf,
    draft: Draft,
    writer: ArrowWriter<File>,
}

impl ParquetFile {
    /// Makes the folders above `path` where they are missing.
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self> {
        let failed = |cause: String| Error::File { action: "create", path: path.into(), cause };
        let name = path.file_name().ok_or_else(|| failed("expected the name of a file".into()))?;
        if path.is_dir() {
            return Err(failed("it is a folder; expected the name of a file".into()));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|e| failed(format!("folder {}: {e}", folder.display())))?;
        }
        let draft = Draft(path.with_file_name(format!(".{}.part", name.to_string_lossy())));
        let file = File::create(&draft.0).map_err(|e| failed(e.to_string()))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|e| failed(e.to_string()))?;
        Ok(Self { path: path.into(), draft, writer })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|e| failed(&self.path, e))
    }

    /// Completes the file, with `metadata` as key-value pairs in its footer; returns its size in bytes.
    pub fn finish(mut self, metadata: Vec<(String, String)>) -> Result<u64> {
        for (key, value) in metadata {
            self.writer.append_key_value_metadata(KeyValue::new(key, value));
        }
        let file = self.writer.into_inner().map_err(|e| failed(&self.path, e))?;
        file.sync_all().map_err(|e| failed(&self.path, e))?;
        let bytes = file.metadata().map_err(|e| failed(&self.path, e))?.len();
        fs::rename(&self.draft.0, &self.path).map_err(|e| failed(&self.path, e))?;
        Ok(bytes)
    }
}

/// The unfinished file; gone when dropped, unless it was renamed.
#[derive(Debug)]
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn failed(path: &Path, cause: impl ToString) -> Error {
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
        let mut file = ParquetFile::create(&path, numbers().schema()).unwrap();
        file.write(&numbers()).unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path().join("below")).unwrap().count(), 0);

        let mut file = ParquetFile::create(&path, numbers().schema()).unwrap();
        file.write(&numbers()).unwrap();
        assert!(!path.exists());
        let bytes = file.finish(vec![("rows".into(), "2".into())]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
        assert_eq!(fs::read_dir(folder.path().join("below")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = ParquetFile::create(folder.path(), numbers().schema()).unwrap_err().to_string();
        assert!(error.contains("it is a folder"), "{error}");
    }
}
