//! The archive as a DataFusion table.
//!
//! Guarantees: the table is the archive as it was when the table was made, whatever is written meanwhile (a
//! listing that DataFusion caches would go stale instead). Its columns are the contract's of today, whenever the files
//! were written: see [`super::older_files`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
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
pub async fn archive_table(
    storage: &Storage,
    source: &str,
    contract: &Arc<Contract>,
) -> std::result::Result<Past, OfflineError> {
    let schema = event_schema(contract.columns());
    let files = archive_files(storage, source).await?;
    if files.is_empty() {
        return Ok(Past { table: Arc::new(EmptyTable::new(schema)), offsets: BTreeMap::new() });
    }
    let place = Path::from(source);
    let urls =
        files.iter().map(|(_, _, file)| storage.url_of(&file.location)).collect::<std::result::Result<_, _>>()?;
    // Of what is asked of the archive, only times are compared with statistics, and those have no NaN.
    let format = ParquetFormat::default().with_enable_pruning(true);
    let options = ListingOptions::new(Arc::new(format)).with_file_extension(".parquet");
    let older = OlderFiles::new(source, contract.clone()).map_err(failed(&place, "no table"))?;
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(schema)
        .with_expr_adapter_factory(Arc::new(older));
    let table = ListingTable::try_new(config).map_err(failed(&place, "no table"))?;
    let table = ArchiveTable { storage: storage.clone(), files: table };
    Ok(Past { table: Arc::new(table), offsets: ranges_of(storage, files).await? })
}

/// Files of the archive, in whichever session they are read.
#[derive(Debug)]
struct ArchiveTable {
    storage: Storage,
    files: ListingTable,
}

#[async_trait]
impl TableProvider for ArchiveTable {
    fn schema(&self) -> SchemaRef {
        self.files.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.files.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.storage.register(session.runtime_env())?;
        self.files.scan(session, projection, filters, limit).await
    }
}
