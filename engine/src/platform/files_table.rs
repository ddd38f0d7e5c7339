//! A files source's events as a DataFusion table.
//!
//! Guarantees: the events that the stream reads, with the same places, and no others: what it rejects is left out. A file that
//! has changed since or is gone is an error. Files are read while the plan runs, and of Parquet only the columns that it wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::try_unfold;

use crate::catalog::Source;
use crate::source::files::FilesConfig;
use crate::source::{EventSource, FileSource, SourceError, event_schema};

/// Rows that are read at once.
const ROWS: usize = 65_536;

#[derive(Debug)]
pub(super) struct FilesTable {
    source: String,
    columns: SchemaRef,
    config: FilesConfig,
    schema: SchemaRef,
}

impl FilesTable {
    pub(super) fn new(source: &Source, config: FilesConfig) -> Self {
        let (name, columns) = (source.name.clone(), source.schema.clone());
        Self { source: name, schema: event_schema(&columns), columns, config }
    }
}

#[async_trait]
impl TableProvider for FilesTable {
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
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let fields = projection.unwrap_or(&all).iter().map(|place| self.schema.field(*place).name().clone());
        let only: BTreeSet<String> = fields.collect();
        // Columns that aren't read come as NULLs.
        let nullable = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(field.is_nullable() || !only.contains(field.name())));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let (source, columns, config) = (self.source.clone(), self.columns.clone(), self.config.clone());
        let events = Events { source, columns, config, only, schema: schema.clone() };
        StreamingTable::try_new(schema, vec![Arc::new(events)])?.scan(session, projection, filters, limit).await
    }
}

/// The events, read when the plan runs.
#[derive(Debug)]
struct Events {
    source: String,
    columns: SchemaRef,
    config: FilesConfig,
    only: BTreeSet<String>,
    schema: SchemaRef,
}

impl PartitionStream for Events {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (source, columns) = (self.source.clone(), self.columns.clone());
        let open = move |config, only| Reading::open(source.clone(), config, columns.clone(), only);
        let start = Pass::Start(self.config.clone(), self.only.clone());
        let rows = try_unfold(start, move |pass| {
            let open = open.clone();
            async move {
                let mut reading = match pass {
                    Pass::Start(config, only) => open(config, only).await.map_err(external)?,
                    Pass::Reading(reading) => reading,
                };
                let events = reading.next().await.map_err(external)?;
                Ok::<_, DataFusionError>(events.map(|events| (events, Pass::Reading(reading))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

fn external(error: SourceError) -> DataFusionError {
    DataFusionError::External(error.into())
}

/// A pass over the files: files are opened when the first rows are wanted.
enum Pass {
    Start(FilesConfig, BTreeSet<String>),
    Reading(Reading),
}

struct Reading {
    files: FileSource,
    partitions: Vec<i32>,
    next: i64,
    rejected: usize,
    reason: Option<String>,
}

impl Reading {
    async fn open(
        source: String,
        config: FilesConfig,
        columns: SchemaRef,
        only: BTreeSet<String>,
    ) -> Result<Self, SourceError> {
        let mut files = FileSource::with_only(&source, config, columns, only)?;
        let partitions = files.partitions().await?;
        Ok(Self { files, partitions, next: 0, rejected: 0, reason: None })
    }

    async fn next(&mut self) -> Result<Option<arrow::array::RecordBatch>, SourceError> {
        while let Some(partition) = self.partitions.last() {
            if let Some(batch) = self.files.read(*partition, self.next, ROWS).await? {
                self.next = batch.next_offset;
                self.rejected += batch.rejects.len();
                self.reason =
                    self.reason.take().or_else(|| batch.rejects.into_iter().next().map(|reject| reject.reason));
                return Ok(Some(batch.events));
            }
            self.partitions.pop();
            self.next = 0;
        }
        if let Some(first) = self.reason.take() {
            let (source, rejected) = (self.files.name(), self.rejected);
            tracing::warn!(source, rejected, first, "events are left out that the stream rejects too");
        }
        Ok(None)
    }
}
