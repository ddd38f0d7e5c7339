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

/// Each row of a spine with a feature view's values for the row's key at the row's instant.
///
/// Output: the spine's columns, then the view's under an alias; one row for each row of the spine, in its order.
#[derive(Debug, Clone)]
pub struct PointInTimeJoin {
    pub spine: LogicalPlan,
    /// Source events: the columns that the view's row stage reads, and the platform's own.
    pub events: LogicalPlan,
    pub view: Arc<FeatureView>,
    pub alias: TableReference,
    /// For each entity key of the view, an expression over the spine.
    pub keys: Vec<Expr>,
    /// The instant, an expression over the spine.
    pub instant: Expr,
    schema: DFSchemaRef,
}

impl PointInTimeJoin {
    pub fn try_new(
        spine: LogicalPlan,
        events: LogicalPlan,
        view: Arc<FeatureView>,
        alias: TableReference,
        keys: Vec<Expr>,
        instant: Expr,
    ) -> Result<Self> {
        let right = DFSchema::try_from_qualified_schema(alias.clone(), &nullable(&view.schema))?;
        let schema = Arc::new(spine.schema().join(&right)?);
        Ok(Self { spine, events, view, alias, keys, instant, schema })
    }

    fn identity(&self) -> (&str, &str, &TableReference, &[Expr], &Expr, &LogicalPlan) {
        (&self.view.name, &self.view.fingerprint, &self.alias, &self.keys, &self.instant, &self.spine)
    }
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
        let keys: Vec<String> =
            self.view.keys.iter().zip(&self.keys).map(|(k, e)| format!("{} = {e}", k.name())).collect();
        write!(
            f,
            "PointInTimeJoin: {} AS {}, on [{}], as of {}",
            self.view.name,
            self.alias,
            keys.join(", "),
            self.instant
        )
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Ok([spine, events]), Some(instant)) = (<[LogicalPlan; 2]>::try_from(inputs), exprs.pop()) else {
            return plan_err!("a point-in-time join has two inputs and an instant");
        };
        Self::try_new(spine, events, self.view.clone(), self.alias.clone(), exprs, instant)
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
