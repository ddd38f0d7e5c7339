//! A feature view taken apart: row stage, timeline, projection.
//!
//! ```text
//! Projection      names and expressions over window results   → FeatureView::projection
//!   Window        aggregates over the timeline                → FeatureView::kernel
//!     …           filters, columns, dimension joins           → FeatureView::row_stage
//!       TableScan the source
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::asof::lineage;
use super::pipeline::{Builder, Kind, Pipeline, project, scans};
use super::problem::{PlanResult, Problem};
use super::projection::{bare_columns, check_names, name_keys, projection};
use super::windows::{Context, Windows};
use super::words::sql_type;
use crate::catalog::Source;
use crate::kernel::{Kernel, TimelineSpec};

/// A compiled feature view: a function from (entity key, instant) to named values.
#[derive(Debug, Clone)]
pub struct FeatureView {
    pub name: String,
    pub source: Arc<Source>,
    /// The entity key: names and types as the view's columns have them.
    pub keys: Vec<FieldRef>,
    /// Everything that a read gives: keys and features, in the order of the SELECT.
    pub schema: SchemaRef,
    /// For each column of `schema`, the index of the key that it is, if it is one.
    pub key_columns: Vec<Option<usize>>,
    /// A source batch to the key columns, then the timeline's columns.
    pub row_stage: Pipeline,
    pub kernel: Arc<Kernel>,
    /// The key columns, then the aggregates' results, to `schema`.
    pub projection: Pipeline,
    pub options: ViewOptions,
    pub docs: BTreeMap<String, String>,
    pub sql: String,
    pub plans: Plans,
    /// Names the compiled form, with the content of its dimension tables: state is kept under it. Empty until they are loaded.
    pub fingerprint: String,
}

#[derive(Debug, Clone, Default)]
pub struct ViewOptions {
    pub description: Option<String>,
    pub owner: Option<String>,
    pub tile: Option<i64>,
    pub lateness: i64,
}

/// The logical plans, for `explain` and the fingerprint.
#[derive(Debug, Clone)]
pub struct Plans {
    pub whole: LogicalPlan,
    pub row_stage: LogicalPlan,
}

impl FeatureView {
    /// The columns that are features: what is not a key.
    pub fn features(&self) -> impl Iterator<Item = &FieldRef> {
        self.schema.fields().iter().zip(&self.key_columns).filter(|(_, key)| key.is_none()).map(|(f, _)| f)
    }

    /// The source's columns that the view needs, and perhaps a few that only share a name with what it computes.
    pub fn reads(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::from([self.source.timestamp.clone()]);
        names.extend(self.source.event_id.clone());
        let _ = self.plans.whole.apply(|node| {
            node.apply_expressions(|expr| {
                names.extend(expr.column_refs().iter().map(|c| c.name.clone()));
                Ok(TreeNodeRecursion::Continue)
            })
        });
        names
    }
}

/// What surrounds the query of a view.
pub struct Surroundings<'a> {
    pub name: &'a str,
    pub kind: &'a dyn Fn(&str) -> Kind,
    pub source: &'a dyn Fn(&str) -> Option<Arc<Source>>,
    pub options: ViewOptions,
    pub docs: BTreeMap<String, String>,
    pub sql: String,
    /// Whether its SELECT has a `*`.
    pub star: bool,
}

/// Takes a view's analysed plan apart. Everything that is wrong with its columns is found in one go.
pub fn compile(plan: &LogicalPlan, around: Surroundings<'_>) -> Result<FeatureView, Vec<Problem>> {
    let (above, mut windows, below) = split(plan).map_err(one)?;
    // DataFusion puts windows into an order of its own; people know theirs.
    windows.sort_by_key(|(_, field)| used_by(field.name(), above.last()).unwrap_or(usize::MAX));
    let source = source_of(below, &around).map_err(one)?;
    let mut problems = vec![];
    let builder = Builder { base: &source.name, instant: &source.timestamp, kind: around.kind, one_row_each: false };
    let steps = builder.steps(below);
    let mut steps = steps.map_err(|p| problems.push(p)).unwrap_or_default();

    // Where a wrong join stands below, what comes through it can't be told.
    let unknown = !problems.is_empty();
    let is_timestamp = |e: &Expr| unknown || lineage(e, below).is_some_and(|c| c == source.timestamp);
    let context = Context {
        input: below.schema(),
        tiled: around.options.tile.is_some(),
        is_timestamp: &is_timestamp,
        timestamp: &source.timestamp,
    };
    let mut gathered = Windows::default();
    for (window, field) in &windows {
        if let Err(problem) = gathered.add(window, field, &context) {
            problems.push(problem.at_column(column_of(field.name(), &above)));
        }
    }
    let keys = match keys(&gathered.keys, below.schema()) {
        Ok(keys) => keys,
        Err(problem) => {
            problems.push(problem);
            vec![]
        }
    };
    if !keys.is_empty() {
        problems.extend(bare_columns(&above, &keys, &windows, around.star));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (projection, schema, key_columns) = projection(&above, plan, &keys, &windows).map_err(one)?;
    let keys = name_keys(&keys, &schema, &key_columns).map_err(one)?;
    check_names(plan, &schema, &key_columns)?;

    let outputs: Vec<Expr> =
        gathered.keys.iter().cloned().chain(gathered.columns.iter().map(|(e, _)| e.clone())).collect();
    let fields: Vec<FieldRef> = keys.iter().cloned().chain(gathered.fields().into_iter().map(Arc::new)).collect();
    let output = Arc::new(Schema::new(fields));
    steps.push(project(&outputs, below.schema(), &output).map_err(one)?);

    let spec = TimelineSpec {
        columns: gathered.fields(),
        frames: gathered.frames,
        aggregates: gathered.aggregates,
        tile: around.options.tile,
        lateness: around.options.lateness,
        ahead: source.options.max_future,
        event_id: source.event_id_field(),
    };
    let kernel = Kernel::new(spec).map_err(|e| one(Problem::new(e.to_string())))?;
    Ok(FeatureView {
        name: around.name.to_owned(),
        source,
        keys,
        schema,
        key_columns,
        row_stage: Pipeline { steps, output },
        kernel: Arc::new(kernel),
        projection,
        options: around.options,
        docs: around.docs,
        sql: around.sql,
        plans: Plans { whole: plan.clone(), row_stage: below.clone() },
        fingerprint: String::new(),
    })
}

type Split<'a> = (Vec<&'a Projection>, Vec<(WindowFunction, Field)>, &'a LogicalPlan);

/// The projections above the windows (outermost first), the windows, and what is below them.
fn split(plan: &LogicalPlan) -> PlanResult<Split<'_>> {
    let mut above = vec![];
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => {
                above.push(projection);
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Window(_) => break,
            LogicalPlan::Filter(filter) if has_window(&filter.input) => {
                return Err(Problem::new(
                    "a feature view can't filter by the result of a window: it must answer for every key and instant",
                )
                .hint("filter the events below the windows, or use a CASE over the result")
                .at_clause("where"));
            }
            other if has_window(other) => return Err(above_windows(other)),
            LogicalPlan::Aggregate(_) => {
                return Err(Problem::new("GROUP BY has no value between events, a window has")
                    .expected("COUNT(*) OVER (PARTITION BY <key> ORDER BY <timestamp> RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)")
                    .at_clause("group"));
            }
            _ => {
                return Err(Problem::new("a feature view needs at least one windowed aggregate")
                    .expected("COUNT(*) OVER (PARTITION BY <key> ORDER BY <timestamp> RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)")
                    .at_clause("select"));
            }
        };
    }
    let mut windows = vec![];
    while let LogicalPlan::Window(window) = node {
        let inputs = window.input.schema().fields().len();
        for (expr, field) in window.window_expr.iter().zip(window.schema.fields().iter().skip(inputs)) {
            let Expr::WindowFunction(function) = unalias(expr) else {
                return Err(Problem::new(format!("not a window function: {expr}")));
            };
            windows.push((function.as_ref().clone(), field.as_ref().clone()));
        }
        node = &window.input;
    }
    if has_window(node) {
        return Err(Problem::new("a window over the results of a window has no timeline of its own")
            .hint("compute both windows over the source in one SELECT")
            .at_name("over"));
    }
    Ok((above, windows, node))
}

fn above_windows(plan: &LogicalPlan) -> Problem {
    let (what, name): (&str, &'static str) = match plan {
        LogicalPlan::Sort(_) => ("ORDER BY", "order"),
        LogicalPlan::Limit(_) => ("LIMIT", "limit"),
        LogicalPlan::Distinct(_) => ("DISTINCT", "distinct"),
        LogicalPlan::Aggregate(_) => ("GROUP BY", "group"),
        LogicalPlan::Join(_) => ("a join", "join"),
        LogicalPlan::Union(_) => ("UNION", "union"),
        LogicalPlan::Unnest(_) => ("UNNEST", "unnest"),
        _ => ("this kind of query", "select"),
    };
    let hint = match plan {
        LogicalPlan::Join(_) => "join dimension tables below the windows (in a subquery), or join views in a service",
        _ => "remove it: a feature view is a function from a key and an instant to one row",
    };
    Problem::new(format!("{what} over window results is not supported in a feature view")).hint(hint).at_clause(name)
}

fn has_window(plan: &LogicalPlan) -> bool {
    plan.exists(|p| Ok(matches!(p, LogicalPlan::Window(_)))).unwrap_or(false)
}

pub(super) fn unalias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unalias(&alias.expr),
        other => other,
    }
}

fn source_of(below: &LogicalPlan, around: &Surroundings<'_>) -> PlanResult<Arc<Source>> {
    let names = scans(below);
    let mut sources = names.iter().filter_map(|n| (around.source)(n));
    match (sources.next(), sources.next()) {
        (Some(source), None) => Ok(source),
        (Some(a), Some(b)) if a.name == b.name => {
            Err(Problem::new(format!("a feature view can't join source `{}` with itself", a.name))
                .hint("make two feature views and join them in a service")
                .at_from(&a.name))
        }
        (Some(a), Some(b)) => {
            Err(Problem::new(format!("a feature view reads one source, not both `{}` and `{}`", a.name, b.name))
                .hint("make a feature view of each and join them in a service")
                .at_from(&b.name))
        }
        (None, _) => {
            let problem = Problem::new("a feature view must read a source").expected("FROM <a CREATE SOURCE>");
            Err(match names.iter().find(|n| matches!((around.kind)(n), Kind::View(_) | Kind::Table(_))) {
                Some(name) => problem.hint(format!("`{name}` is not a stream of events")).at_from(name),
                None => problem.at_clause("select"),
            })
        }
    }
}

pub(super) type QualifiedField = (Option<TableReference>, FieldRef);

fn keys(exprs: &[Expr], schema: &DFSchema) -> PlanResult<Vec<QualifiedField>> {
    exprs
        .iter()
        .map(|expr| {
            let Expr::Column(column) = expr else {
                return Err(Problem::new(format!("PARTITION BY takes columns, not {expr}")));
            };
            let (qualifier, field) = schema.qualified_field_from_column(column)?;
            if !crate::kernel::is_key_type(field.data_type()) {
                return Err(Problem::new(format!(
                    "`{}` can't be an entity key: its type is {}",
                    field.name(),
                    sql_type(field.data_type())
                ))
                .expected("an integer, string, boolean, date, timestamp or decimal")
                .hint("CAST it in a subquery or a CREATE VIEW")
                .at_name(field.name()));
            }
            Ok((qualifier.cloned(), field.clone()))
        })
        .collect()
}

pub(super) fn one(problem: Problem) -> Vec<Problem> {
    vec![problem]
}

/// Which column of the outermost SELECT uses a window's result, where that can be told.
fn column_of(window: &str, above: &[&Projection]) -> Option<usize> {
    let [only] = above else { return None };
    used_by(window, Some(only))
}

fn used_by(window: &str, projection: Option<&&Projection>) -> Option<usize> {
    projection?.expr.iter().position(|e| e.column_refs().iter().any(|c| c.name == window))
}
