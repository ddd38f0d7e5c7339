//! Tables: files that are read whole or scanned, as dimension tables and as spines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use datafusion::catalog::TableProvider;
use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::FileFormat as DfFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;

use super::source::check_column;
use crate::source::normal_type;
use crate::sql::{Diagnostic, FileFormat, HistoryDef, TableDef};

/// A table whose columns are known. Its files may still be missing if the definition states the columns.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub schema: SchemaRef,
    pub format: FileFormat,
    /// DataFusion's options of the format, by their full names.
    pub options: BTreeMap<String, String>,
    /// With relative paths resolved against the project folder.
    pub location: String,
    /// Where its rows change over time.
    pub history: Option<History>,
    pub description: Option<String>,
}

/// From when on, and how long, the rows of a table with history hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The column with the instant from which on a row holds, until its key's next row.
    pub timestamp: String,
    /// How long it holds at most, in microseconds, that instant included.
    pub max_age: Option<i64>,
}

impl History {
    /// `None` for a plain table.
    pub fn resolve(definition: &TableDef, schema: &SchemaRef) -> Result<Option<Self>, Vec<Diagnostic>> {
        let Some(HistoryDef { timestamp, max_age }) = &definition.history else { return Ok(None) };
        let instant = |t: &DataType| matches!(t, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64);
        check_column(schema, timestamp, &definition.file, instant, "a timestamp or a date").map_err(|e| vec![e])?;
        Ok(Some(Self { timestamp: timestamp.value.clone(), max_age: *max_age }))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("table {table}: no file at {location}; create it, or mend the LOCATION")]
    Missing { table: String, location: String },
    #[error("table {table} at {location}: {source}")]
    Read { table: String, location: String, source: Box<DataFusionError> },
    #[error("table {table}: {file}: {cause}")]
    File { table: String, file: String, cause: String },
}

impl Table {
    /// Whether there is any file at its location. A URL is taken at its word.
    pub fn present(&self) -> bool {
        self.location.contains("://") || !self.paths().is_empty()
    }

    /// A scan of the files, with the table's columns.
    pub fn provider(&self) -> Result<Arc<dyn TableProvider>, TableError> {
        if !self.present() {
            return Err(TableError::Missing { table: self.name.clone(), location: self.location.clone() });
        }
        let read = |source: DataFusionError| TableError::Read {
            table: self.name.clone(),
            location: self.location.clone(),
            source: Box::new(source),
        };
        let Some((url, options)) = listing(&self.location, self.format, &self.options).map_err(read)? else {
            return self.in_memory();
        };
        let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(self.schema.clone());
        Ok(Arc::new(ListingTable::try_new(config).map_err(read)?))
    }

    fn in_memory(&self) -> Result<Arc<dyn TableProvider>, TableError> {
        let mut batches = vec![];
        for path in self.paths() {
            let failed =
                |cause: String| TableError::File { table: self.name.clone(), file: path.display().to_string(), cause };
            let file = File::open(&path).map_err(|e| failed(e.to_string()))?;
            let reader = ReaderBuilder::new().build(BufReader::new(file)).map_err(|e| failed(e.to_string()))?;
            for batch in reader {
                let batch = batch.map_err(|e| failed(e.to_string()))?;
                batches.push(conform(&batch, &self.schema).map_err(|e| failed(e.to_string()))?);
            }
        }
        let table = MemTable::try_new(self.schema.clone(), vec![batches]).map_err(|source| TableError::Read {
            table: self.name.clone(),
            location: self.location.clone(),
            source: Box::new(source),
        })?;
        Ok(Arc::new(table))
    }

    /// The files at a location on this machine, by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        let pattern = match Path::new(&self.location).is_dir() {
            true => format!("{}/**/*", self.location.trim_end_matches('/')),
            false => self.location.clone(),
        };
        let found = glob::glob(&pattern).into_iter().flatten().flatten();
        found.filter(|p| p.is_file()).collect()
    }
}

/// The columns of a table's files, read with its options.
pub async fn table_columns(
    location: &str,
    format: FileFormat,
    options: &BTreeMap<String, String>,
) -> Result<Schema, DataFusionError> {
    let Some((url, options)) = listing(location, format, options)? else { return Ok(Schema::empty()) };
    let found = options.infer_schema(&SessionContext::new().state(), &url).await?;
    let normal = |field: &FieldRef| Field::new(field.name(), normal_type(field.data_type()), true);
    Ok(Schema::new(found.fields().iter().map(normal).collect::<Vec<_>>()))
}

/// How DataFusion finds and reads a table's files; nothing for Avro, which is read here.
fn listing(
    location: &str,
    format: FileFormat,
    stated: &BTreeMap<String, String>,
) -> Result<Option<(ListingTableUrl, ListingOptions)>, DataFusionError> {
    let mut options = TableOptions::new();
    options.csv.has_header = Some(true);
    let config = match format {
        FileFormat::Parquet => ConfigFileType::PARQUET,
        FileFormat::Csv => ConfigFileType::CSV,
        FileFormat::Ndjson => ConfigFileType::JSON,
        FileFormat::Avro => return Ok(None),
    };
    options.set_config_format(config);
    for (option, value) in stated {
        options.set(option, value)?;
    }
    let format: Arc<dyn DfFormat> = match format {
        FileFormat::Csv => Arc::new(CsvFormat::default().with_options(options.csv)),
        FileFormat::Ndjson => Arc::new(JsonFormat::default().with_options(options.json)),
        // Statistics of doubles don't tell of NaN, and these files may come from anywhere.
        _ => Arc::new(ParquetFormat::default().with_options(options.parquet).with_enable_pruning(false)),
    };
    let mut location = location.to_owned();
    if Path::new(&location).is_dir() && !location.ends_with('/') {
        location.push('/');
    }
    // Whatever the files are called: the definition says what they are.
    Ok(Some((ListingTableUrl::parse(&location)?, ListingOptions::new(format).with_file_extension(""))))
}

/// A file's rows with the table's columns: by name, cast; a column that the file lacks is NULL.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    /// The rows as they are with these options; with the columns that the options give where none are stated.
    async fn rows(file: &str, options: &[(&str, &str)], schema: Option<Schema>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("t.csv").to_string_lossy().into_owned();
        std::fs::write(&location, file).unwrap();
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let format = FileFormat::Csv;
        let schema = match schema {
            Some(schema) => schema,
            None => table_columns(&location, format, &options).await.unwrap(),
        };
        let (name, schema) = ("t".to_owned(), Arc::new(schema));
        let table = Table { name, schema, format, options, location, history: None, description: None };
        let read = SessionContext::new().read_table(table.provider().unwrap()).unwrap().collect().await.unwrap();
        pretty_format_batches(&read).unwrap().to_string()
    }

    #[tokio::test]
    async fn options_say_how_files_are_read() {
        let stated = Schema::new(vec![
            Field::new("currency", DataType::Utf8, true),
            Field::new("rate", DataType::Float64, true),
        ]);
        let options = [("format.has_header", "false"), ("format.delimiter", ";"), ("format.comment", "#")];
        let read = rows("EUR;1.5\n# none\nUSD;1\n", &options, Some(stated.clone())).await;
        assert!(read.contains("| EUR      | 1.5  |\n| USD      | 1.0  |"), "{read}");
        let read = rows("EUR;1.5\nUSD;1\n", &options, None).await;
        assert!(read.contains("| EUR      | 1.5      |\n| USD      | 1.0      |"), "{read}");
        let read = rows("currency,rate\nEUR,1.5\n", &[], Some(stated)).await;
        assert!(read.contains("| EUR      | 1.5  |\n+"), "the first line names the columns, unless it is said: {read}");
    }
}
