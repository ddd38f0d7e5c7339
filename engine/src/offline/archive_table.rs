//! The archive as a DataFusion table.
//!
//! Guarantees: the table is the archive as it was when the table was made, whatever is written and compacted meanwhile. A file that
//! is gone by the time it is read is an error that names it (DataFusion's own table over files takes it for an empty folder). Its
//! columns are the contract's of today, whenever the files were written: see [`super::older_files`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::archive_files::{list_archive, ranges};
use super::history::{History, HistoryTable};
use super::older_files::OlderFiles;
use super::retention::Removed;
use super::{OfflineError, Storage, failed};
use crate::source::{Contract, event_schema};

/// What there was: events as a table, and for each partition the offsets of the first and the last of them, where they have any.
#[derive(Debug, Clone)]
pub struct Past {
    pub table: Arc<dyn TableProvider>,
    pub offsets: BTreeMap<i32, RangeInclusive<i64>>,
    /// The version of the source's history, if it declares one: its events come first.
    pub history: Option<String>,
    /// What retention removed before the table was made.
    pub removed: Removed,
}

impl Past {
    /// A table of everything.
    pub fn whole(table: Arc<dyn TableProvider>) -> Past {
        Past { table, offsets: BTreeMap::new(), history: None, removed: Removed::default() }
    }

    /// With what came before.
    pub fn after(self, history: Arc<History>) -> Past {
        let version = Some(history.version().to_owned());
        Past { table: Arc::new(HistoryTable { history, archive: self.table }), history: version, ..self }
    }
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
    let found = list_archive(storage, source).await?;
    let Some(any) = found.counting.first() else {
        return Ok(Past { removed: found.removed, ..Past::whole(Arc::new(EmptyTable::new(schema))) });
    };
    let older = OlderFiles::new(source, contract.clone()).map_err(failed(&Path::from(source), "no table"))?;
    let store = storage.url_of(&any.meta.location)?.object_store();
    let mut files = vec![];
    for file in &found.counting {
        let location = storage.url_of(&file.meta.location)?.prefix().clone();
        files.push(ObjectMeta { location, ..file.meta.clone() });
    }
    let table = ArchiveTable { storage: storage.clone(), store, schema, files, older };
    let offsets = ranges(storage, &found).await?;
    Ok(Past { table: Arc::new(table), offsets, history: None, removed: found.removed })
}

/// Whether a plan failed since a file is gone that was there when its table was made.
pub fn gone(error: &DataFusionError) -> bool {
    // On its way through the Parquet reader, object_store's error became text.
    let text = error.to_string();
    text.contains("Object at location ") && text.contains(" not found")
}

/// Files of the archive, in whichever session they are read.
#[derive(Debug)]
struct ArchiveTable {
    storage: Storage,
    store: ObjectStoreUrl,
    schema: SchemaRef,
    files: Vec<ObjectMeta>,
    older: OlderFiles,
}

#[async_trait]
impl TableProvider for ArchiveTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.storage.register(session.runtime_env())?;
        let files: FileGroup = self.files.iter().cloned().map(PartitionedFile::from).collect();
        // Of what is asked of the archive, only times are compared with statistics, and those have no NaN.
        let format = ParquetFormat::default().with_enable_pruning(true);
        let source = format.file_source(TableSchema::from(self.schema.clone()));
        let scan = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(files.split_files(session.config().target_partitions()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(self.older.clone())))
            .build();
        format.create_physical_plan(session, scan).await
    }
}
