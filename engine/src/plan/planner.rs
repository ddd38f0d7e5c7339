//! SQL to logical plans: DataFusion's planner over the relations of the catalogue.
//!
//! Names, types, coercions and functions are DataFusion's own. A plan that leaves here has been through its
//! analyzer, so every expression in it is typed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result, TableReference, plan_datafusion_err};
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast;

use crate::sql::MATCH_CONDITION;

/// The settings that give the online and the offline plans the same types (strings are `Utf8`, not views), and that read
/// files for what their rows say: Parquet's statistics leave NaN out, and DataFusion 55 takes a column whose least and
/// greatest number are equal for a constant.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pruning = false;
    options.execution.collect_statistics = false;
    // Every instant is UTC; without this DataFusion drops the zone of TIMESTAMP WITH TIME ZONE.
    options.execution.time_zone = Some("UTC".to_owned());
    config
}

/// Functions and options shared by every plan. Catalogues and tables are not in it.
pub static STATE: LazyLock<SessionState> =
    LazyLock::new(|| SessionStateBuilder::new().with_config(session_config()).with_default_features().build());

/// What a name in a FROM clause stands for.
#[derive(Debug, Clone)]
pub enum Relation {
    /// Rows of this shape: a source, a table, a feature view, or the request.
    Rows(SchemaRef),
    /// A `CREATE VIEW`, inlined where it is named.
    Inlined(LogicalPlan),
}

/// The relations that a query may name.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    relations: BTreeMap<String, Relation>,
    /// Names that exist but can't be read here, and why.
    refused: BTreeMap<String, String>,
}

/// The message with which [`Planner::plan`] refuses a relation it doesn't know; the name follows.
pub const UNKNOWN_RELATION: &str = "unknown relation ";

impl Planner {
    pub fn with(mut self, name: &str, relation: Relation) -> Self {
        self.insert(name, relation);
        self
    }

    pub fn insert(&mut self, name: &str, relation: Relation) {
        self.relations.insert(name.to_owned(), relation);
    }

    /// Makes a name an error with a reason, where an unknown name would only be unknown.
    pub fn refuse(&mut self, name: &str, why: &str) {
        self.refused.insert(name.to_owned(), why.to_owned());
    }

    /// Why a relation can't be read here.
    pub fn refusal(&self, name: &str) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.relations.keys().map(String::as_str)
    }

    /// Plans and type-checks a query.
    pub fn plan(&self, query: &ast::Query) -> Result<LogicalPlan> {
        self.analysed(self.parsed(query)?)
    }

    /// The query's plan before type coercion, where the types that it compares are still its own.
    pub fn parsed(&self, query: &ast::Query) -> Result<LogicalPlan> {
        let provider = Provider { relations: &self.relations };
        let options = ParserOptions::from(&STATE.config_options().sql_parser);
        SqlToRel::new_with_options(&provider, options)
            .sql_statement_to_plan(ast::Statement::Query(Box::new(query.clone())))
    }

    pub fn analysed(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        STATE.analyzer().execute_and_check(plan, STATE.config_options(), |_, _| {})
    }

    /// The Arrow type that a SQL type names.
    pub fn data_type(&self, sql: &ast::DataType) -> Result<DataType> {
        let provider = Provider { relations: &self.relations };
        let options = ParserOptions::from(&STATE.config_options().sql_parser);
        let column = ast::ColumnDef { name: ast::Ident::new("c"), data_type: sql.clone(), options: vec![] };
        let schema = SqlToRel::new_with_options(&provider, options).build_schema(vec![column])?;
        Ok(normalise(schema.field(0).data_type()))
    }
}

/// SQL's TIMESTAMP is an instant: UTC, microseconds, whatever its spelling.
fn normalise(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, _) => crate::plan::timestamp_type(),
        other => other.clone(),
    }
}

struct Provider<'a> {
    relations: &'a BTreeMap<String, Relation>,
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let relation = match &name {
            TableReference::Bare { table } => self.relations.get(table.as_ref()),
            _ => None,
        };
        let relation = relation.ok_or_else(|| plan_datafusion_err!("{UNKNOWN_RELATION}{name}"))?;
        Ok(Arc::new(RelationSource::try_from(relation)?))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        STATE.expr_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        None
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == MATCH_CONDITION {
            return Some(Arc::clone(&super::asof::FUNCTION));
        }
        STATE.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        STATE.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        STATE.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        STATE.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        STATE.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        STATE.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        STATE.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        STATE.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        STATE.window_functions().keys().cloned().collect()
    }
}

struct RelationSource {
    schema: SchemaRef,
    inlined: Option<LogicalPlan>,
}

impl TryFrom<&Relation> for RelationSource {
    type Error = datafusion::error::DataFusionError;

    fn try_from(relation: &Relation) -> Result<Self> {
        Ok(match relation {
            Relation::Rows(schema) => Self { schema: schema.clone(), inlined: None },
            Relation::Inlined(plan) => {
                Self { schema: Arc::clone(DFSchema::inner(plan.schema())), inlined: Some(plan.clone()) }
            }
        })
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.inlined.as_ref().map(Cow::Borrowed)
    }
}
