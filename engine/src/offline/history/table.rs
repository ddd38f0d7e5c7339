//! A history before its source's archive, as one DataFusion table.
//!
//! Guarantees: the events that views fill from, with the same places, and no others; a file that is gone or changed ends the plan with
//! an error. Only the columns that are wanted are read, by several tasks, each some of the files.

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
use datafusion::physical_plan::union::UnionExec;
use futures::stream::try_unfold;

use super::History;
use super::file::Rows;

/// What came before, and what has come since.
#[derive(Debug)]
pub(in crate::offline) struct HistoryTable {
    pub history: Arc<History>,
    pub archive: Arc<dyn TableProvider>,
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        self.history.schema.clone()
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
        let archive = self.archive.scan(session, projection, filters, limit).await?;
        let all: Vec<usize> = (0..self.history.schema.fields().len()).collect();
        let wanted = Arc::new(self.history.schema.project(projection.unwrap_or(&all))?);
        // The event time is looked at in any case.
        let mut read: Vec<usize> = projection.unwrap_or(&all).clone();
        let time = self.history.schema.index_of(&self.history.judge.timestamp)?;
        if !read.contains(&time) {
            read.push(time);
        }
        read.sort_unstable();
        let schema = Arc::new(self.history.schema.project(&read)?);
        let tasks = session.config().target_partitions().clamp(1, self.history.files.len().max(1));
        let task = |task: usize| -> Arc<dyn PartitionStream> {
            let files = (task..self.history.files.len()).step_by(tasks).collect();
            Arc::new(Files { history: self.history.clone(), files, read: schema.clone(), wanted: wanted.clone() })
        };
        let history = StreamingTable::try_new(wanted.clone(), (0..tasks).map(task).collect())?;
        let history = history.scan(session, None, &[], limit).await?;
        UnionExec::try_new(vec![history, archive])
    }
}

/// Some of the files, read when the plan runs.
#[derive(Debug)]
struct Files {
    history: Arc<History>,
    files: Vec<usize>,
    read: SchemaRef,
    wanted: SchemaRef,
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &self.wanted
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (history, read, wanted) = (self.history.clone(), self.read.clone(), self.wanted.clone());
        let start: (std::vec::IntoIter<usize>, Option<Rows>) = (self.files.clone().into_iter(), None);
        let rows = try_unfold(start, move |(mut files, mut open)| {
            let (history, read, wanted) = (history.clone(), read.clone(), wanted.clone());
            async move {
                let external = |e| DataFusionError::External(Box::new(e));
                loop {
                    if let Some(rows) = &mut open
                        && let Some(events) = rows.next().await.map_err(external)?
                    {
                        return Ok(Some((project(&events, &wanted)?, (files, open))));
                    }
                    let Some(file) = files.next() else { return Ok(None) };
                    open = history.rows(file, 0, read.clone()).await.map_err(external)?;
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.wanted.clone(), rows))
    }
}

fn project(events: &arrow::array::RecordBatch, wanted: &Schema) -> Result<arrow::array::RecordBatch> {
    let places = wanted.fields().iter().map(|field| events.schema_ref().index_of(field.name()));
    Ok(events.project(&places.collect::<std::result::Result<Vec<_>, _>>()?)?)
}
