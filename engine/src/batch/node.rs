//! The point-in-time join as a logical node.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, Result, TableReference, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::plan::FeatureView;
use crate::plan::pipeline::nullable;

/// Each row of a spine with feature views' values for the row's key at the row's instant. The views have the same source and
/// the same key.
///
/// Output: the spine's columns, then each view's under its alias; one row for each row of the spine, in any order.
#[derive(Debug, Clone)]
pub struct PointInTimeJoin {
    pub spine: LogicalPlan,
    /// Source events: the columns that the views' row stages read, and the platform's own.
    pub events: LogicalPlan,
    pub views: Vec<(Arc<FeatureView>, TableReference)>,
    /// For each entity key of the views, an expression over the spine.
    pub keys: Vec<Expr>,
    /// The instant, an expression over the spine.
    pub instant: Expr,
    /// From when on there is every event; none where nothing was removed.
    pub horizon: Option<i64>,
    schema: DFSchemaRef,
}

impl PointInTimeJoin {
    pub fn try_new(
        spine: LogicalPlan,
        events: LogicalPlan,
        views: Vec<(Arc<FeatureView>, TableReference)>,
        keys: Vec<Expr>,
        instant: Expr,
        horizon: Option<i64>,
    ) -> Result<Self> {
        if let Some(((view, _), horizon)) = views.iter().find(|(view, _)| view.needs_all()).zip(horizon) {
            return plan_err!("view {}: {}", view.name, view.beyond(horizon));
        }
        let mut schema = spine.schema().as_ref().clone();
        for (view, alias) in &views {
            schema = schema.join(&DFSchema::try_from_qualified_schema(alias.clone(), &nullable(&view.schema))?)?;
        }
        Ok(Self { spine, events, views, keys, instant, horizon, schema: Arc::new(schema) })
    }

    /// Whether another view can be joined in the same pass, by the same keys.
    pub fn takes(&self, view: &FeatureView, keys: &[Expr]) -> bool {
        let types = |view: &FeatureView| view.keys.iter().map(|key| key.data_type().clone()).collect::<Vec<_>>();
        self.keys == keys
            && self.views.iter().all(|(held, _)| held.source.name == view.source.name && types(held) == types(view))
    }

    fn identity(&self) -> impl PartialOrd + Hash + '_ {
        let views: Vec<_> = self.views.iter().map(|(view, alias)| (&view.name, &view.fingerprint, alias)).collect();
        (views, &self.keys, &self.instant, &self.spine, self.horizon)
    }
}

/// The views with the keys that they are joined on, for EXPLAIN.
pub(super) fn on<'a>(views: impl IntoIterator<Item = &'a Arc<FeatureView>>, keys: &[impl fmt::Display]) -> String {
    let keys_of = views.into_iter().next().map(|view| view.keys.clone()).unwrap_or_default();
    let keys: Vec<String> = keys_of.iter().zip(keys).map(|(key, expr)| format!("{} = {expr}", key.name())).collect();
    keys.join(", ")
}

impl UserDefinedLogicalNodeCore for PointInTimeJoin {
    fn name(&self) -> &str {
        "PointInTimeJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.spine, &self.events]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().cloned().chain([self.instant.clone()]).collect()
    }

    /// Nothing passes below: a filter on features can't, and one on the spine's columns is not worth a second path.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let views: Vec<String> = self.views.iter().map(|(view, alias)| format!("{} AS {alias}", view.name)).collect();
        let on = on(self.views.iter().map(|(view, _)| view), &self.keys);
        write!(f, "PointInTimeJoin: {}, on [{on}], as of {}", views.join(", "), self.instant)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Ok([spine, events]), Some(instant)) = (<[LogicalPlan; 2]>::try_from(inputs), exprs.pop()) else {
            return plan_err!("a point-in-time join has two inputs and an instant");
        };
        Self::try_new(spine, events, self.views.clone(), exprs, instant, self.horizon)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let spine = self.spine.schema().fields().len();
        let events = self.events.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|i| *i < spine).collect(), (0..events).collect()])
    }
}

impl PartialEq for PointInTimeJoin {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for PointInTimeJoin {}

impl Hash for PointInTimeJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for PointInTimeJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}
