//! A DataFusion session that knows the point-in-time join and the steps of a service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::{PointInTimeExec, PointInTimeJoin, ServiceStep};
use crate::plan::planner::session_config;

/// A session for training sets. DataFusion's defaults otherwise; strings are `Utf8`.
pub fn session() -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .build();
    SessionContext::new_with_state(state)
}

#[derive(Debug)]
struct Planner;

type Planned<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        create(plan, session).await
    }
}

// Free functions: the trait's own signature under `async_trait` costs seconds of type-checking.
fn create<'a>(plan: &'a LogicalPlan, session: &'a dyn Session) -> Planned<'a, Arc<dyn ExecutionPlan>> {
    Box::pin(async move {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Extension)]);
        planner.create_physical_plan(plan, session).await
    })
}

struct Extension;

#[async_trait]
impl ExtensionPlanner for Extension {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        plan(planner, node, physical_inputs, session, planning)
    }
}

fn plan(
    planner: &dyn PhysicalPlanner,
    node: &dyn UserDefinedLogicalNode,
    inputs: &[Arc<dyn ExecutionPlan>],
    session: &dyn Session,
    planning: &PhysicalPlanningContext,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let (Some(step), [input]) = (node.as_any().downcast_ref::<ServiceStep>(), inputs) {
        return Ok(Some(Arc::new(step.exec(input.clone()))));
    }
    let (Some(join), [spine, events]) = (node.as_any().downcast_ref::<PointInTimeJoin>(), inputs) else {
        return Ok(None);
    };
    let expr = |e| planner.create_physical_expr(e, join.spine.schema(), session, planning);
    Ok(Some(Arc::new(PointInTimeExec::new(
        spine.clone(),
        events.clone(),
        join.views.iter().map(|(view, _)| view.clone()).collect(),
        join.keys.iter().map(expr).collect::<Result<_>>()?,
        expr(&join.instant)?,
        Arc::clone(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(join).inner()),
    ))))
}
