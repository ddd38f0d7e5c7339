//! A DataFusion session that knows the point-in-time join and the steps of a service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;

use super::order::InSpineOrder;
use super::{PointInTimeExec, PointInTimeJoin, ServiceStep};
use crate::buckets::runtime_within;
use crate::plan::planner::session_config;

/// Up to so many bytes are sorted in one piece: to merge what many buckets give is a comparison of each row with many.
const SORTED_AT_ONCE: usize = 128 << 20;

/// A session for training sets. DataFusion's defaults otherwise; strings are `Utf8`.
pub fn session() -> SessionContext {
    let config = session_config().with_sort_in_place_threshold_bytes(SORTED_AT_ONCE);
    let state = with_runtime(Arc::new(RuntimeEnv::default()), config);
    SessionContext::new_with_state(state.with_physical_optimizer_rule(Arc::new(InSpineOrder)).build())
}

/// A session whose plans give their rows in the same order each time: what numbers a spine's rows.
pub fn session_in_order() -> SessionContext {
    let state = with_runtime(Arc::new(RuntimeEnv::default()), session_config().with_target_partitions(1));
    SessionContext::new_with_state(state.build())
}

/// So much of the memory limit stands for each row of a batch.
const BYTES_A_ROW: usize = 4096;

/// A session whose operators share so many bytes of memory; what they need beyond it they write to temporary files.
pub fn session_within(memory: usize) -> Result<SessionContext> {
    // A sort must hold some batches at least, whatever the limit.
    let rows = (memory / BYTES_A_ROW).clamp(64, session_config().batch_size());
    let config = session_config().with_batch_size(rows).with_sort_spill_reservation_bytes(memory / 32);
    let config = config.with_sort_in_place_threshold_bytes(SORTED_AT_ONCE.min(memory / 8));
    Ok(SessionContext::new_with_state(with_runtime(runtime_within(memory)?, config).build()))
}

/// How many bytes the operators of a plan that has run wrote to temporary files.
pub fn spilled(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0) as u64;
    own + plan.children().into_iter().map(spilled).sum::<u64>()
}

fn with_runtime(runtime: Arc<RuntimeEnv>, config: SessionConfig) -> SessionStateBuilder {
    SessionStateBuilder::new()
        .with_runtime_env(runtime)
        .with_config(config)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
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
        join.horizon,
        Arc::clone(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(join).inner()),
    ))))
}
