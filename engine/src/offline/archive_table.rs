//! The archive as a DataFusion table.
//!
//! Guarantees: the table is the archive as it was when the table was made, whatever is written meanwhile (a
//! listing that DataFusion caches would go stale instead). Its columns are the given ones; one that a file is
//! too old to have is NULL.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig};
use object_store::path::Path;

use super::archive::archive_files;
use super::{OfflineError, Storage, failed};

/// All events of a source's archive, with the columns of `schema`. Columns added to the contract since must be nullable.
///
/// A location other than a folder must be registered with the session that reads the table, see [`Storage::store`].
pub async fn archive_table(
    storage: &Storage,
    source: &str,
    schema: SchemaRef,
) -> Result<Arc<dyn TableProvider>, OfflineError> {
    let files = archive_files(storage, source).await?;
    if files.is_empty() {
        return Ok(Arc::new(EmptyTable::new(schema)));
    }
    let urls = files.iter().map(|(_, _, file)| storage.url_of(&file.location)).collect::<Result<_, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema);
    let table = ListingTable::try_new(config).map_err(failed(&Path::from(source), "no table"))?;
    Ok(Arc::new(table))
}

/// Rows with the columns of a schema: by name, cast; a column that the rows lack is NULL.
pub(super) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
