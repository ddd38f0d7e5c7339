//! What stands above a view's windows: expressions over keys and results, and the names that they get.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::pipeline::{Pipeline, project};
use super::problem::{PlanResult, Problem};
use super::view::{QualifiedField, one, unalias};

type Projected = (Pipeline, SchemaRef, Vec<Option<usize>>);

/// The expressions above the windows over (keys, window results), and which of their columns are keys.
pub(super) fn projection(
    above: &[&Projection],
    plan: &LogicalPlan,
    keys: &[QualifiedField],
    windows: &[(WindowFunction, Field)],
) -> PlanResult<Projected> {
    let mut schema = below_projection(keys, windows)?;
    let mut lineage: Vec<Option<usize>> = (0..schema.fields().len()).map(|i| (i < keys.len()).then_some(i)).collect();
    let mut steps = vec![];
    for (depth, projection) in above.iter().rev().enumerate() {
        if depth > 0 {
            schema = projection.input.schema().as_ref().clone();
        }
        steps.push(project(&projection.expr, &schema, projection.schema.as_arrow())?);
        lineage = projection
            .expr
            .iter()
            .map(|expr| match unalias(expr) {
                Expr::Column(column) => {
                    schema.maybe_index_of_column(column).and_then(|i| lineage.get(i).copied().flatten())
                }
                _ => None,
            })
            .collect();
        schema = projection.schema.as_ref().clone();
    }
    let output = super::pipeline::nullable(plan.schema().as_arrow());
    // A key selected twice is a key once and a feature after that.
    let mut seen = vec![false; keys.len()];
    let key_columns = lineage.into_iter().map(|key| key.filter(|k| !std::mem::replace(&mut seen[*k], true))).collect();
    Ok((Pipeline { steps, output: output.clone() }, output, key_columns))
}

/// What the lowest projection above the windows sees.
fn below_projection(keys: &[QualifiedField], windows: &[(WindowFunction, Field)]) -> PlanResult<DFSchema> {
    let windows = windows.iter().map(|(_, f)| (None, Arc::new(f.clone())));
    Ok(DFSchema::new_with_metadata(keys.iter().cloned().chain(windows).collect(), Default::default())?)
}

/// Columns above the windows that have no value there.
pub(super) fn bare_columns(
    above: &[&Projection],
    keys: &[QualifiedField],
    windows: &[(WindowFunction, Field)],
    star: bool,
) -> Vec<Problem> {
    let Some(lowest) = above.last() else { return vec![] };
    let schema = match below_projection(keys, windows) {
        Ok(schema) => schema,
        Err(problem) => return vec![problem],
    };
    // A key of some window only is an error of that window.
    let partitioned = |name: &str| {
        windows
            .iter()
            .any(|(w, _)| w.params.partition_by.iter().any(|e| e.column_refs().iter().any(|c| c.name == name)))
    };
    let outermost = above.len() == 1;
    let mut bare = vec![];
    for (i, expr) in lowest.expr.iter().enumerate() {
        if let Some(name) = bare_column(expr, &schema).filter(|name| !partitioned(name)) {
            bare.push((outermost.then_some(i), name));
        }
    }
    if star && outermost && bare.len() > 1 {
        let names: Vec<&str> = bare.iter().map(|(_, name)| name.as_str()).collect();
        let problem = Problem::new(format!(
            "`*` brings columns that are neither keys nor windows' results: {}",
            names.join(", ")
        ));
        return vec![problem.expected("the keys, and windowed aggregates, one by one").at_name("*")];
    }
    let problem = |(column, name): (Option<usize>, String)| {
        Problem::new(format!("`{name}` is neither a key nor a window's result: between events it has no value"))
            .expected("a PARTITION BY column or a windowed aggregate")
            .hint(format!("LAST_VALUE({name}) OVER w is its latest value"))
            .at_name(name)
            .at_column(column)
    };
    bare.into_iter().map(problem).collect()
}

/// A column above the windows that is neither a key nor a window's result.
fn bare_column(expr: &Expr, schema: &DFSchema) -> Option<String> {
    expr.column_refs().into_iter().find(|c| schema.maybe_index_of_column(c).is_none()).map(|c| c.name.clone())
}

/// The keys under the names that the view gives them.
pub(super) fn name_keys(
    keys: &[QualifiedField],
    schema: &SchemaRef,
    columns: &[Option<usize>],
) -> PlanResult<Vec<FieldRef>> {
    keys.iter()
        .enumerate()
        .map(|(i, (_, field))| match columns.iter().position(|c| *c == Some(i)) {
            Some(column) => Ok(Arc::new(Field::new(schema.field(column).name(), field.data_type().clone(), true))),
            None => Err(Problem::new(format!(
                "the key `{}` is not selected, so nothing could join this view",
                field.name()
            ))
            .expected(format!("SELECT {}, …", field.name()))
            .at_clause("select")),
        })
        .collect()
}

/// Every feature must have a name that SQL and JSON can say.
pub(super) fn check_names(plan: &LogicalPlan, schema: &Schema, keys: &[Option<usize>]) -> Result<(), Vec<Problem>> {
    if keys.iter().all(Option::is_some) {
        return Err(
            one(Problem::new("a feature view needs at least one feature besides its keys").at_clause("select")),
        );
    }
    let problems = unnamed(plan, schema);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Columns of a plan whose name SQL and JSON can't say.
pub fn unnamed(plan: &LogicalPlan, schema: &Schema) -> Vec<Problem> {
    let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    // DataFusion makes an alias of a window's text, too.
    let own = |name: &str| !name.contains(['(', '[']);
    let named = |i: usize| matches!(plan, LogicalPlan::Projection(p) if matches!(p.expr.get(i), Some(Expr::Alias(a)) if own(&a.name)));
    let odd = schema.fields().iter().enumerate().filter(|(_, f)| !plain(f.name()));
    odd.map(|(i, field)| {
        let problem = match named(i) {
            true => Problem::new(format!("a column can't be called \"{}\"", field.name()))
                .expected("a name of letters, digits and `_`"),
            false => Problem::new("this column needs a name").expected("… AS <name>"),
        };
        problem.at_item().at_column(Some(i))
    })
    .collect()
}
