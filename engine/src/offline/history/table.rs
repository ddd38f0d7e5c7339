//! A history before its source's archive, as one DataFusion table.
//!
//! Guarantees: the events that views fill from, with the same places, and no others; a file that is gone or changed ends the plan with
//! an error. Only the columns that are wanted are read, and only the row groups in which a wanted event may be: see [`super::scan`].

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use super::History;
use super::scan::HistoryExec;

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
        let tasks = session.config().target_partitions();
        let history = HistoryExec::new(self.history.clone(), wanted, tasks);
        UnionExec::try_new(vec![Arc::new(history), archive])
    }
}
