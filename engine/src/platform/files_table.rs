//! A files source's events as a DataFusion table.
//!
//! Guarantees: the events that the stream reads, with the same places and in their order, and no others: what it rejects is left out. A file that
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
use datafusion::logical_expr::{Expr, col};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use tokio::sync::mpsc::Sender;

use crate::catalog::Source;
use crate::source::files::FilesConfig;
use crate::source::{FileSource, OFFSET, PARTITION, SourceError, event_schema};

/// Rows that are read at once, as many as are decoded at once.
const ROWS: usize = 16_384;
/// Batches that are read ahead.
const AHEAD: usize = 16;

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
        let place = [PARTITION, OFFSET].map(|column| col(column).sort(true, true));
        let table = StreamingTable::try_new(schema, vec![Arc::new(events)])?.with_sort_order(place.to_vec());
        table.scan(session, projection, filters, limit).await
    }
}

/// The events, read when the plan runs, and ahead of who takes them: decoding is half of the work.
#[derive(Debug, Clone)]
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
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), AHEAD);
        let (output, events) = (stream.tx(), self.clone());
        // A thread of its own: who takes the rows has work enough to keep the runtime's busy.
        stream.spawn_blocking(move || events.read(&output).map_err(external));
        stream.build()
    }
}

impl Events {
    fn read(self, output: &Sender<Result<RecordBatch>>) -> Result<(), SourceError> {
        let files = FileSource::with_only(&self.source, self.config, self.columns, self.only)?;
        let (mut next, mut rejected, mut first) = (0, 0, None);
        while let Some(batch) = files.read_here(next, ROWS)? {
            next = batch.next_offset;
            rejected += batch.rejects.len();
            first = first.or_else(|| batch.rejects.into_iter().next().map(|reject| reject.reason));
            if output.blocking_send(Ok(batch.events)).is_err() {
                // Nobody reads on.
                return Ok(());
            }
        }
        if let Some(first) = first {
            tracing::warn!(source = self.source, rejected, first, "events are left out that the stream rejects too");
        }
        Ok(())
    }
}

fn external(error: SourceError) -> DataFusionError {
    DataFusionError::External(error.into())
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::ExecutionPlanProperties;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::source::files::{Reading, file_columns, infer};

    /// What a join goes by: without it, it keeps each event's place.
    #[tokio::test]
    async fn its_plan_says_that_events_come_in_the_order_of_their_places() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.csv"), "at,n\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:00Z,2\n").unwrap();
        std::fs::write(folder.path().join("a.csv"), "at,n\n2026-01-02T00:00:00Z,3\n").unwrap();
        let location = folder.path().to_string_lossy().into_owned();
        let columns = file_columns("t", &infer("t", &location, None).unwrap(), "at").unwrap();
        let config = FilesConfig {
            location,
            format: None,
            timestamp: "at".into(),
            max_future: i64::MAX,
            of: String::new(),
            manifest: None,
            reading: Reading::Looking,
            clock: || 0,
        };
        let table = FilesTable { source: "t".into(), schema: event_schema(&columns), columns, config };
        let context = SessionContext::new();
        let frame = context.read_table(Arc::new(table)).unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        let order = plan.output_ordering().unwrap().to_string();
        assert_eq!(
            (order.as_str(), plan.output_partitioning().partition_count()),
            ("_partition@2 ASC, _offset@3 ASC", 1)
        );
        let shown = frame.select_columns(&["n", "_partition", "_offset"]).unwrap().to_string().await.unwrap();
        assert!(shown.contains("| 3 | 0          | 0          |\n| 1 | 0          | 4294967296 |"), "{shown}");
    }
}
