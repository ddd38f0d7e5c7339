//! One file of events in each format. A file is written beside its name and renamed when it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use apache_avro::{Codec, DeflateSettings, Schema, Writer};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use super::{Format, clicks_batch, transactions_batch};
use crate::contract::{clicks_schema, transactions_schema};
use crate::{Click, Error, Result, Transaction};

/// A file of transactions.
pub(super) struct TransactionFile(EventFile);

impl TransactionFile {
    pub fn create(path: &Path, format: Format) -> Result<Self> {
        Ok(Self(match format {
            Format::Parquet => EventFile::Parquet(ParquetFile::create(path, transactions_batch(&[])?.schema())?),
            Format::Avro => EventFile::Avro(AvroFile::create(path, transactions_schema()?)?),
            Format::NdJson => EventFile::NdJson(JsonFile::create(path)?),
        }))
    }

    pub fn write(&mut self, rows: &[Transaction]) -> Result<()> {
        self.0.write(rows, transactions_batch)
    }

    pub fn finish(self) -> Result<PathBuf> {
        self.0.finish()
    }
}

/// A file of clicks.
pub(super) struct ClickFile(EventFile);

impl ClickFile {
    pub fn create(path: &Path, format: Format) -> Result<Self> {
        Ok(Self(match format {
            Format::Parquet => EventFile::Parquet(ParquetFile::create(path, clicks_batch(&[])?.schema())?),
            Format::Avro => EventFile::Avro(AvroFile::create(path, clicks_schema()?)?),
            Format::NdJson => EventFile::NdJson(JsonFile::create(path)?),
        }))
    }

    pub fn write(&mut self, rows: &[Click]) -> Result<()> {
        self.0.write(rows, clicks_batch)
    }

    pub fn finish(self) -> Result<PathBuf> {
        self.0.finish()
    }
}

enum EventFile {
    Parquet(ParquetFile),
    Avro(AvroFile),
    NdJson(JsonFile),
}

impl EventFile {
    fn write<T: Serialize>(&mut self, rows: &[T], batch: fn(&[T]) -> Result<RecordBatch>) -> Result<()> {
        match self {
            Self::Parquet(file) => file.write(&batch(rows)?),
            Self::Avro(file) => file.write(rows),
            Self::NdJson(file) => file.write(rows),
        }
    }

    fn finish(self) -> Result<PathBuf> {
        match self {
            Self::Parquet(file) => file.finish(),
            Self::Avro(file) => file.finish(),
            Self::NdJson(file) => file.finish(),
        }
    }
}

/// A Parquet file, zstd compressed.
pub(super) struct ParquetFile {
    draft: Draft,
    writer: ArrowWriter<File>,
}

impl ParquetFile {
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self> {
        let (draft, file) = Draft::create(path)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|source| draft.parquet(source))?;
        Ok(Self { draft, writer })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|source| self.draft.parquet(source))
    }

    pub fn finish(self) -> Result<PathBuf> {
        self.writer.close().map_err(|source| self.draft.parquet(source))?;
        self.draft.publish()
    }
}

struct AvroFile {
    draft: Draft,
    writer: Writer<'static, BufWriter<File>>,
}

impl AvroFile {
    fn create(path: &Path, schema: &'static Schema) -> Result<Self> {
        let (draft, file) = Draft::create(path)?;
        let writer = Writer::builder()
            .schema(schema)
            .writer(BufWriter::new(file))
            .codec(Codec::Deflate(DeflateSettings::default()))
            .human_readable(false)
            .build()
            .map_err(|source| draft.avro(source))?;
        Ok(Self { draft, writer })
    }

    fn write<T: Serialize>(&mut self, rows: &[T]) -> Result<()> {
        for row in rows {
            self.writer.append_ser(row).map_err(|source| self.draft.avro(source))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<PathBuf> {
        // A file without rows gets its header too.
        self.writer.flush().map_err(|source| self.draft.avro(source))?;
        let mut file = self.writer.into_inner().map_err(|source| self.draft.avro(source))?;
        file.flush().map_err(|source| self.draft.io("write", source))?;
        self.draft.publish()
    }
}

struct JsonFile {
    draft: Draft,
    writer: BufWriter<File>,
}

impl JsonFile {
    fn create(path: &Path) -> Result<Self> {
        let (draft, file) = Draft::create(path)?;
        Ok(Self { draft, writer: BufWriter::new(file) })
    }

    fn write<T: Serialize>(&mut self, rows: &[T]) -> Result<()> {
        for row in rows {
            serde_json::to_writer(&mut self.writer, row)
                .map_err(|source| Error::JsonFile { path: self.draft.path.clone(), source })?;
            self.writer.write_all(b"\n").map_err(|source| self.draft.io("write", source))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<PathBuf> {
        self.writer.flush().map_err(|source| self.draft.io("write", source))?;
        self.draft.publish()
    }
}

/// A file on its way to its name.
struct Draft {
    path: PathBuf,
    draft: PathBuf,
}

impl Draft {
    fn create(path: &Path) -> Result<(Self, File)> {
        // A leading dot and a foreign ending: nobody who lists `*.parquet` sees half a file.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = Self { path: path.to_owned(), draft: path.with_file_name(format!(".{name}.draft")) };
        let file = File::create(&draft.draft).map_err(|source| draft.io("create", source))?;
        Ok((draft, file))
    }

    fn publish(self) -> Result<PathBuf> {
        fs::rename(&self.draft, &self.path).map_err(|source| self.io("create", source))?;
        Ok(self.path)
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::File { action, path: self.path.clone(), source }
    }

    fn parquet(&self, source: parquet::errors::ParquetError) -> Error {
        Error::Parquet { path: self.path.clone(), source }
    }

    fn avro(&self, source: apache_avro::Error) -> Error {
        Error::AvroFile { path: self.path.clone(), source: Box::new(source) }
    }
}
