//! A files source's events as a DataFusion table.
//!
//! Guarantees: the events that the stream reads, with the same places, and no others: what it rejects is left out. A file that
//! has changed since or is gone is an error. Files are read while the plan runs, and of Parquet only the columns that it wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
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
        let parts = session.config().target_partitions().max(1);
        let part = |part| -> Arc<dyn PartitionStream> {
            let (source, columns, config) = (self.source.clone(), self.columns.clone(), self.config.clone());
            Arc::new(Events {
                source,
                columns,
                config,
                only: only.clone(),
                schema: schema.clone(),
                part: (part, parts),
            })
        };
        let table = StreamingTable::try_new(schema.clone(), (0..parts).map(part).collect())?;
        table.scan(session, projection, filters, limit).await
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
    /// Which part of the files, and of how many.
    part: (usize, usize),
}

impl PartitionStream for Events {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (source, columns) = (self.source.clone(), self.columns.clone());
        let part = self.part;
        let open = move |config, only| Reading::open(source.clone(), config, columns.clone(), only, part);
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
    /// Offsets that are still to be read, the next ones last.
    spans: Vec<(i64, i64)>,
    rejected: usize,
    reason: Option<String>,
}

impl Reading {
    async fn open(
        source: String,
        config: FilesConfig,
        columns: SchemaRef,
        only: BTreeSet<String>,
        (part, parts): (usize, usize),
    ) -> Result<Self, SourceError> {
        let files = FileSource::with_only(&source, config, columns, only)?;
        let spans = files.spans().await?;
        // Neighbours stay together: a part opens few files.
        let at = |part: usize| part * spans.len() / parts;
        let mut spans = spans.get(at(part)..at(part + 1)).unwrap_or_default().to_vec();
        spans.reverse();
        Ok(Self { files, spans, rejected: 0, reason: None })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        while let Some(span) = self.spans.last_mut() {
            if let Some(batch) = self.files.read_span(span, ROWS).await? {
                self.rejected += batch.rejects.len();
                let first = batch.rejects.into_iter().next().map(|reject| reject.reason);
                self.reason = self.reason.take().or(first);
                return Ok(Some(batch.events));
            }
            self.spans.pop();
        }
        if let Some(first) = self.reason.take() {
            let (source, rejected) = (self.files.name(), self.rejected);
            tracing::warn!(source, rejected, first, "events are left out that the stream rejects too");
        }
        Ok(None)
    }
}
