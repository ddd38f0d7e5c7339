//! The archive as a DataFusion table.
//!
//! Guarantees: the table is the archive as it was when the table was made, whatever is written meanwhile (a
//! listing that DataFusion caches would go stale instead). Its columns are the contract's of today, whenever the files
//! were written: see [`super::older_files`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig};
use object_store::path::Path;

use super::archive::{archive_files, ranges_of};
use super::older_files::OlderFiles;
use super::{OfflineError, Storage, failed};
use crate::source::{Contract, event_schema};

/// What there was: events as a table, and for each partition the offsets of the first and the last of them, where they have any.
#[derive(Debug, Clone)]
pub struct Past {
    pub table: Arc<dyn TableProvider>,
    pub offsets: BTreeMap<i32, RangeInclusive<i64>>,
}

/// All events of a source's archive, with the contract's columns and the platform's own.
///
/// For sessions that read no statistics, as ours don't: by a file's statistics, a column that it lacks is NULL all over.
/// A location other than a folder must be registered with the session that reads the table, see [`Storage::store`].
pub async fn archive_table(storage: &Storage, source: &str, contract: &Arc<Contract>) -> Result<Past, OfflineError> {
    let schema = event_schema(contract.columns());
    let files = archive_files(storage, source).await?;
    if files.is_empty() {
        return Ok(Past { table: Arc::new(EmptyTable::new(schema)), offsets: BTreeMap::new() });
    }
    let place = Path::from(source);
    let urls = files.iter().map(|(_, _, file)| storage.url_of(&file.location)).collect::<Result<_, _>>()?;
    // Of what is asked of the archive, only times are compared with statistics, and those have no NaN.
    let format = ParquetFormat::default().with_enable_pruning(true);
    let options = ListingOptions::new(Arc::new(format)).with_file_extension(".parquet");
    let older = OlderFiles::new(source, contract.clone()).map_err(failed(&place, "no table"))?;
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(schema)
        .with_expr_adapter_factory(Arc::new(older));
    let table = ListingTable::try_new(config).map_err(failed(&place, "no table"))?;
    Ok(Past { table: Arc::new(table), offsets: ranges_of(storage, files).await? })
}
