//! Constant relations: dimension tables read once, when a project is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;

use super::pipeline::{Pipeline, batch};
use super::planner::session_config;
use crate::catalog::{Table, TableError};

/// Loads what a pipeline's table joins look up. `Some` names a table whose files are missing, which is no error yet.
pub async fn load_tables(pipeline: &mut Pipeline, tables: &BTreeMap<String, Arc<Table>>) -> Result<Option<TableError>> {
    for join in pipeline.table_joins_mut() {
        if let Some(missing) = join.tables.iter().filter_map(|name| tables.get(name)).find(|t| !t.present()) {
            return Ok(Some(TableError::Missing { table: missing.name.clone(), location: missing.location.clone() }));
        }
        let plan = bind(&join.right, &|name| provider(tables, name))?;
        let rows = execute(plan).await?;
        join.load(rows)?;
    }
    Ok(None)
}

/// The provider of a table by its name.
pub fn provider(tables: &BTreeMap<String, Arc<Table>>, name: &str) -> Result<Arc<dyn TableProvider>> {
    let table = tables.get(name).ok_or_else(|| plan_datafusion_err!("no table `{name}`"))?;
    table.provider().map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))
}

/// A plan whose scans read real relations in place of the catalogue's shapes.
pub fn bind(plan: &LogicalPlan, provider: &dyn Fn(&str) -> Result<Arc<dyn TableProvider>>) -> Result<LogicalPlan> {
    let bound = plan.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            scan.source = provider_as_source(provider(scan.table_name.table())?);
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

async fn execute(plan: LogicalPlan) -> Result<RecordBatch> {
    let schema = Arc::clone(plan.schema().inner());
    let context = SessionContext::new_with_config(session_config());
    let batches = context.execute_logical_plan(plan).await?.collect().await?;
    let Some(first) = batches.first() else {
        return Ok(RecordBatch::new_empty(schema));
    };
    let all = concat_batches(&first.schema(), &batches)?;
    let rows = all.num_rows();
    batch(super::pipeline::nullable(&schema), all.columns().to_vec(), rows)
}
