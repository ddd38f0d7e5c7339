//! Lookups: joins that find at most one row.
//!
//! A join to a dimension table is a hash lookup in a constant, and where the table has history, in what it was at an instant; a
//! join to a feature view is a read of the view's values for a key. All keep the left row as it is, so none may find two
//! rows: a table with a key twice (at one instant) is refused when it is loaded.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{is_not_null, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{Result, exec_datafusion_err, internal_datafusion_err};
use datafusion::logical_expr::utils::{conjunction, find_valid_equijoin_key_pair, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::FeatureView;
use super::asof::{as_history, matching};
use super::lookup::{Lookup, instants};
use super::pipeline::{Kind, Rows, Step, batch, nullable, physical, same_family, scans};
use super::problem::{PlanResult, Problem};
use super::words::{duration, qualified_sql, sql_type};

/// A join to a relation whose content is constant.
#[derive(Debug, Clone)]
pub struct TableJoin {
    /// The right side, for whoever loads it: reads tables only.
    pub right: LogicalPlan,
    /// The tables that it reads.
    pub tables: Vec<String>,
    left_keys: Vec<Arc<dyn PhysicalExpr>>,
    right_keys: Vec<Arc<dyn PhysicalExpr>>,
    /// For a table with history.
    pub as_of: Option<AsOf>,
    /// What of the ON clause is not an equality of keys, over the joined row.
    residual: Option<Arc<dyn PhysicalExpr>>,
    inner: bool,
    schema: SchemaRef,
    content: Option<Arc<Lookup>>,
}

/// By what a table with history is joined.
#[derive(Debug, Clone)]
pub struct AsOf {
    /// The row's instant.
    instant: Arc<dyn PhysicalExpr>,
    /// The table's column with the instant from which on its row holds.
    timestamp: Arc<dyn PhysicalExpr>,
    /// How long a row holds at most, in microseconds.
    pub max_age: Option<i64>,
}

/// A join to a feature view: for each row, the view's values for a key.
#[derive(Debug, Clone)]
pub struct ViewJoin {
    pub view: Arc<FeatureView>,
    /// The name by which the service calls it.
    pub alias: String,
    /// For each entity key of the view, in its order, the row's value.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The left columns, then the view's.
    pub schema: SchemaRef,
}

/// A join as a step: of a feature view, or of a constant relation.
pub fn step(join: &Join, kind: &dyn Fn(&str) -> Kind) -> PlanResult<Step> {
    if !matches!(join.join_type, JoinType::Left | JoinType::Inner) {
        return Err(Problem::new(format!("{} JOIN is not supported here", spelled(join.join_type)))
            .expected("LEFT JOIN or JOIN")
            .at_clause("join"));
    }
    if let Some((view, alias)) = as_view(&join.right, kind) {
        let keys = view_keys(join, &view, &alias)?;
        let keys = keys.iter().map(|e| physical(e, join.left.schema())).collect::<PlanResult<_>>()?;
        return Ok(Step::JoinView(ViewJoin { view, alias, keys, schema: nullable(join.schema.as_arrow()) }));
    }
    let tables = scans(&join.right);
    for name in &tables {
        match kind(name) {
            Kind::Table(_) => {}
            Kind::View(_) => {
                return Err(Problem::new(format!(
                    "feature view `{name}` must be joined by itself, not inside a subquery"
                ))
                .expected(format!("LEFT JOIN {name} ON {name}.<key> = …"))
                .at_from(name));
            }
            Kind::Source => {
                return Err(Problem::new(format!("`{name}` is a stream of events: it can't be joined, only read FROM"))
                    .hint("join a dimension table (CREATE EXTERNAL TABLE), or make a feature view of it and join that in a service")
                    .at_from(name));
            }
            Kind::Request => {
                return Err(Problem::new("`request` must stand first in FROM, and once").at_name("request"));
            }
        }
    }
    let name = tables.first().cloned().unwrap_or_default();
    let (pairs, residual) = equi_pairs(join)?;
    let (matched, residual) = matching(residual);
    if pairs.is_empty() {
        return Err(Problem::new(format!("the join to `{name}` has no equality to look it up by"))
            .expected("ON <row's column> = <table's column>")
            .at_from(&name));
    }
    let (left, right): (Vec<_>, Vec<_>) = pairs.iter().map(|(l, r)| (l, r)).unzip();
    let residual = residual.map(|e| physical(&e, &join.schema)).transpose()?;
    let as_of = match (matched, as_history(&join.right, kind)) {
        (Some(matched), Some((history, _))) => Some(AsOf {
            instant: physical(&matched.instant, join.left.schema())?,
            timestamp: physical(&matched.timestamp, join.right.schema())?,
            max_age: history.max_age,
        }),
        (None, None) => None,
        // What is written is refused earlier, in more words.
        _ => {
            return Err(
                Problem::new(format!("`{name}` must be joined as of an instant if it has history")).at_from(&name)
            );
        }
    };
    Ok(Step::JoinTable(Box::new(TableJoin {
        right: join.right.as_ref().clone(),
        tables,
        left_keys: left.iter().map(|e| physical(e, join.left.schema())).collect::<PlanResult<_>>()?,
        right_keys: right.iter().map(|e| physical(e, join.right.schema())).collect::<PlanResult<_>>()?,
        as_of,
        residual,
        inner: join.join_type == JoinType::Inner,
        schema: nullable(join.schema.as_arrow()),
        content: None,
    })))
}

/// The feature view that a join's right side is, if it is one, and its alias.
pub fn as_view(right: &LogicalPlan, kind: &dyn Fn(&str) -> Kind) -> Option<(Arc<FeatureView>, String)> {
    match right {
        LogicalPlan::SubqueryAlias(alias) => {
            let (view, _) = as_view(&alias.input, kind)?;
            Some((view, alias.alias.table().to_owned()))
        }
        LogicalPlan::TableScan(scan) => match kind(scan.table_name.table()) {
            Kind::View(view) => {
                let name = view.name.clone();
                Some((view, name))
            }
            _ => None,
        },
        _ => None,
    }
}

/// For each entity key of the view, in its order, the left side's expression that it is equal to.
pub fn view_keys(join: &Join, view: &FeatureView, alias: &str) -> PlanResult<Vec<Expr>> {
    let (pairs, residual) = equi_pairs(join)?;
    let on = view.keys.iter().map(|k| format!("{alias}.{} = …", k.name())).collect::<Vec<_>>().join(" AND ");
    let expected = format!("ON {on}");
    if let Some(residual) = residual {
        return Err(Problem::new(format!(
            "the join to feature view `{}` has a condition that is not an equality of its keys: {}",
            view.name,
            qualified_sql(&residual)
        ))
        .expected(expected)
        .at_from(alias));
    }
    let mut keys: Vec<Option<Expr>> = vec![None; view.keys.len()];
    for (left, right) in pairs {
        let Expr::Column(column) = uncast(&right) else {
            return Err(Problem::new(format!(
                "the join to feature view `{}` compares an expression, not a key",
                view.name
            ))
            .expected(expected)
            .at_from(alias));
        };
        let Some(i) = view.keys.iter().position(|k| k.name() == &column.name) else {
            return Err(Problem::new(format!("`{}` is not a key of feature view `{}`", column.name, view.name))
                .expected(expected)
                .at_from(&column.name));
        };
        // A cast to the key's type is the query's own; one to something wider than both is a coercion's.
        let wanted = view.keys[i].data_type();
        let left = if same_family(&left.get_type_in(join)?, wanted) { left } else { uncast(&left).clone() };
        let found = left.get_type_in(join)?;
        if !same_family(&found, wanted) {
            return Err(types_differ(&right, wanted, &left, &found).at_from(&column.name));
        }
        if keys[i].replace(left).is_some() {
            return Err(Problem::new(format!("key `{}` is compared twice", column.name))
                .expected(expected)
                .at_from(&column.name));
        }
    }
    let missing: Vec<&str> =
        view.keys.iter().zip(&keys).filter(|(_, e)| e.is_none()).map(|(k, _)| k.name().as_str()).collect();
    if !missing.is_empty() {
        return Err(Problem::new(format!(
            "the join to feature view `{}` leaves out its key {}",
            view.name,
            missing.join(", ")
        ))
        .expected(expected)
        .at_from(alias));
    }
    Ok(keys.into_iter().flatten().collect())
}

/// Refuses joins by columns of types that are equal only after a conversion: before type coercion, which would
/// make a text a number without a word.
pub fn check_types(plan: &LogicalPlan) -> PlanResult<()> {
    if let LogicalPlan::Join(join) = plan {
        for (left, right) in equi_pairs(join)?.0 {
            let (of_left, of_right) =
                (left.get_type(join.left.schema().as_ref())?, right.get_type(join.right.schema().as_ref())?);
            if !same_family(&of_left, &of_right) {
                let name = right.column_refs().into_iter().next().map(|c| c.name.clone()).unwrap_or_default();
                return Err(types_differ(&right, &of_right, &left, &of_left).at_from(name));
            }
        }
    }
    plan.inputs().into_iter().try_for_each(check_types)
}

fn types_differ(right: &Expr, of_right: &DataType, left: &Expr, of_left: &DataType) -> Problem {
    let side = |e: &Expr| uncast(e).to_string();
    Problem::new(format!(
        "key types differ: `{}` is {}, `{}` is {}",
        side(right),
        sql_type(of_right),
        side(left),
        sql_type(of_left)
    ))
    .hint("make both of one type, or CAST one of them")
}

fn spelled(join: JoinType) -> String {
    join.to_string().to_uppercase()
}

/// Pairs of equal (left, right) expressions, and what else a join's condition asks.
pub type Condition = (Vec<(Expr, Expr)>, Option<Expr>);

/// The condition of a join.
pub fn equi_pairs(join: &Join) -> PlanResult<Condition> {
    let mut pairs = join.on.clone();
    let mut rest = vec![];
    for conjunct in join.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct
            && let Some(pair) = find_valid_equijoin_key_pair(left, right, join.left.schema(), join.right.schema())?
        {
            pairs.push(pair);
        } else {
            rest.push(conjunct.clone());
        }
    }
    Ok((pairs, conjunction(rest)))
}

/// A join in words.
pub struct JoinWords {
    pub on: String,
    /// "as of o.event_time, at most 7 days old"
    pub as_of: Option<String>,
}

pub fn join_words(join: &Join, kind: &dyn Fn(&str) -> Kind) -> PlanResult<JoinWords> {
    let (pairs, residual) = equi_pairs(join)?;
    let (matched, residual) = matching(residual);
    let on = pairs.iter().map(|(left, right)| format!("{right} = {left}")).chain(residual.map(|e| e.to_string()));
    let as_of = matched.zip(as_history(&join.right, kind)).map(|(matched, (history, _))| {
        let age = history.max_age.map_or(String::new(), |age| format!(", at most {} old", duration(age)));
        format!("as of {}{age}", matched.instant)
    });
    Ok(JoinWords { on: on.collect::<Vec<_>>().join(" AND "), as_of })
}

/// The expression under the casts that type coercion put around it.
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        other => other,
    }
}

trait TypeInJoin {
    fn get_type_in(&self, join: &Join) -> PlanResult<DataType>;
}

impl TypeInJoin for Expr {
    fn get_type_in(&self, join: &Join) -> PlanResult<DataType> {
        Ok(self.get_type(join.left.schema().as_ref())?)
    }
}

impl TableJoin {
    /// Takes the right side's rows. A key that stands in two rows is an error, of a table with history at one instant.
    pub fn load(&mut self, rows: RecordBatch) -> Result<()> {
        let keys = evaluate(&self.right_keys, &rows)?;
        let since = self.as_of.as_ref().map(|as_of| value(&as_of.timestamp, &rows)).transpose()?;
        let max_age = self.as_of.as_ref().and_then(|as_of| as_of.max_age);
        let table = self.tables.join(", ");
        self.content = Some(Arc::new(Lookup::new(&table, rows, &keys, since.as_ref(), max_age)?));
        Ok(())
    }

    /// The rows that were loaded, for the fingerprint.
    pub fn content(&self) -> Option<&RecordBatch> {
        self.content.as_ref().map(|c| c.rows())
    }

    pub fn apply(&self, rows: Rows) -> Result<Rows> {
        let content = self
            .content
            .as_ref()
            .ok_or_else(|| internal_datafusion_err!("dimension table {} is not loaded", self.tables.join(", ")))?;
        let n = rows.batch.num_rows();
        let keys = evaluate(&self.left_keys, &rows.batch)?;
        let at = self.as_of.as_ref().map(|as_of| as_of.instants(&rows.batch)).transpose()?;
        let found = content.find(&keys, at.as_ref())?;
        let mut joined = self.joined(&rows.batch, &found)?;
        let mut hit = is_not_null(&found)?;
        if let Some(residual) = &self.residual {
            let mask = residual.evaluate(&joined)?.into_array(n)?;
            let mask = as_boolean_array(&mask)?;
            hit = (0..n).map(|i| Some(hit.value(i) && mask.is_valid(i) && mask.value(i))).collect();
            let found: UInt32Array =
                (0..n).map(|i| (hit.value(i) && found.is_valid(i)).then(|| found.value(i))).collect();
            joined = self.joined(&rows.batch, &found)?;
        }
        let rows = Rows { batch: joined, origin: rows.origin };
        if self.inner { rows.keep(&hit) } else { Ok(rows) }
    }

    fn joined(&self, left: &RecordBatch, found: &UInt32Array) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = left.columns().to_vec();
        if let Some(content) = &self.content {
            for column in content.rows().columns() {
                columns.push(take(column, found, None)?);
            }
        }
        batch(self.schema.clone(), columns, left.num_rows())
    }
}

impl AsOf {
    fn instants(&self, rows: &RecordBatch) -> Result<Int64Array> {
        let values = value(&self.instant, rows)?;
        instants(&values).map_err(|_| exec_datafusion_err!("{} is no instant", self.instant))
    }
}

fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| value(e, rows)).collect()
}

fn value(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(rows)?.into_array(rows.num_rows())
}
