//! The third answer: plain DataFusion, which knows nothing of Tidemark.
//!
//! Two formulations. [`frames`]: every aggregate as an ordinary GROUP BY over exactly the rows of its frame: any
//! aggregate, any frame. [`windows`]: the view's own window expressions over the events and one virtual row at the
//! instant, where DataFusion's sliding accumulators can be held to account (see `Aggregate::slides`).
//!
//! In the second, event times are nanoseconds: the microsecond plus the event's rank among its ties, the virtual row
//! half a microsecond after all of them. So `CURRENT ROW` becomes one nanosecond before the virtual row, which
//! contributes nothing, and ties are in the timeline's order.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidemark_engine::source::event_schema;

use super::engine::{instants, keys, table};
use super::events::Event;
use super::view::{Aggregate, Frame, Span, Style, Ty, View, condition};
use super::world::{SpineRow, World, cities};

/// Columns of [`frames`] beside `__id` and the features.
pub const SEEN: &str = "__seen";
pub const NEWEST: &str = "__newest";
pub const LAST: &str = "__last";

pub fn context() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    // One pass of the optimiser is enough for queries this small, and half of the test's time is here.
    config.options_mut().optimizer.max_passes = 1;
    let rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(EnsureRequirements::new())];
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    let cities = cities();
    let table = MemTable::try_new(cities.schema(), vec![vec![cities]]).unwrap();
    context.register_table("cities", Arc::new(table)).unwrap();
    context
}

pub fn load_events(context: &SessionContext, world: &World, schema: &arrow::datatypes::SchemaRef) {
    let events: Vec<&Event> = world.events.iter().collect();
    context.deregister_table("events").unwrap();
    context.register_table("events", table(&events, &event_schema(schema), 1)).unwrap();
    let rates = world.rates.table();
    context.deregister_table("rates").unwrap();
    context.register_table("rates", Arc::new(MemTable::try_new(rates.schema(), vec![vec![rates]]).unwrap())).unwrap();
}

/// Puts the view's questions in place: `asked` has a row for each row of the spine.
pub fn load_spine(context: &SessionContext, view: &View, spine: &[SpineRow]) {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(instants(spine)).with_timezone("UTC"));
    let place = spine.iter().map(|row| row.place).collect::<StringArray>();
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new((0..spine.len() as i64).collect::<Int64Array>()), at, Arc::new(place)];
    columns.extend(keys(view, spine));
    let names = ["__id".to_owned(), "__t".to_owned(), "__place".to_owned()]
        .into_iter()
        .chain(view.keys.iter().map(|k| k.name.clone()));
    let fields: Vec<Field> =
        names.zip(&columns).map(|(name, c)| Field::new(name, c.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
    context.deregister_table("asked").unwrap();
    context.register_table("asked", Arc::new(MemTable::try_new(schema, vec![vec![rows]]).unwrap())).unwrap();
}

pub async fn run(context: &SessionContext, sql: &str) -> Result<RecordBatch, String> {
    let failed = |e: datafusion::error::DataFusionError| format!("plain DataFusion: {}\n{sql}", e.strip_backtrace());
    let frame = context.sql(sql).await.map_err(failed)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(failed)?;
    let schema = batches.first().map_or(schema, |b| b.schema());
    concat_batches(&schema, &batches).map_err(|e| e.to_string())
}

/// The view's rows below the windows, with `__at` and where they come from. Copies of an event come along as
/// `__copy` 2, 3, …; the first in the timeline's order is 1.
pub fn rows(world: &World, view: &View) -> String {
    let more = ["_partition", "_offset", "event_id"];
    let stage = view.rows.select(view, &more, &world.rates.held("e.city", "e.event_time"));
    let stage = match view.rows.style {
        Style::Direct => {
            let inner = condition(&view.rows.inner);
            format!("{}{}", stage.strip_suffix(inner.as_str()).unwrap(), condition(&view.both()))
        }
        _ => format!("SELECT * FROM ({stage}) AS s{}", condition(&view.rows.outer)),
    };
    let copy = if world.shape.event_id {
        let partition = key_list(view, "");
        format!(
            "CASE WHEN event_id IS NULL THEN 1 ELSE ROW_NUMBER() OVER (PARTITION BY {partition}, {}, event_id ORDER BY _partition, _offset) END",
            view.time
        )
    } else {
        "1".to_owned()
    };
    let columns: String = scope(view).iter().map(|c| format!(", {c}")).collect();
    let keys = key_list(view, "");
    format!(
        "SELECT {keys}, {} AS __at, _partition, _offset, event_id, {copy} AS __copy{columns} FROM ({stage}) AS staged",
        view.time
    )
}

/// [`rows`], each event once.
fn firsts(world: &World, view: &View) -> String {
    match world.shape.event_id {
        true => format!("(SELECT * FROM ({}) AS copies WHERE __copy = 1)", rows(world, view)),
        false => format!("({})", rows(world, view)),
    }
}

fn key_list(view: &View, qualifier: &str) -> String {
    view.keys.iter().map(|k| format!("{qualifier}{}", k.name)).collect::<Vec<_>>().join(", ")
}

/// The columns that aggregates read, less the keys, which the questions have.
fn scope(view: &View) -> Vec<&str> {
    let key = |name: &str| view.keys.iter().any(|k| k.name == name);
    let words =
        |text: &str, name: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    let read =
        |name: &str| view.aggregates.iter().any(|a| a.args.iter().chain(&a.filter).any(|text| words(text, name)));
    view.rows.scope.iter().map(|(name, _)| name.as_str()).filter(|name| !key(name) && read(name)).collect()
}

fn on(view: &View) -> String {
    view.keys.iter().map(|k| format!("r.{0} = i.{0}", k.name)).collect::<Vec<_>>().join(" AND ")
}

fn feature_list(view: &View, features: &[usize]) -> String {
    features
        .iter()
        .map(|f| &view.features[*f])
        .map(|f| format!("{} AS {}", f.fill(|i| format!("a{i}")), f.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Every aggregate over exactly the rows of its frame. `__m<i>` is how large the numbers of an aggregate that rounds are.
pub fn frames(world: &World, view: &View) -> String {
    let keys = key_list(view, "");
    let columns: String = scope(view).iter().map(|c| format!(", r.{c}")).collect();
    let rank = "CASE WHEN __at <= __t THEN ROW_NUMBER() OVER (PARTITION BY __id, __at <= __t ORDER BY __at DESC, _partition DESC, _offset DESC) END";
    let ranked = view.windows.iter().any(|w| matches!(w.frame, Frame::Rows { .. }));
    let rank = if ranked { format!(", {rank} AS __rank") } else { String::new() };
    let covered: Vec<String> = view
        .windows
        .iter()
        .enumerate()
        .map(|(i, w)| format!("COALESCE({}, false) AS __w{i}", covers(&w.frame, view)))
        .collect();
    let aggregates: Vec<String> = view.aggregates.iter().enumerate().map(|(i, a)| a.over_rows(i)).collect();
    let magnitudes: String = (0..view.aggregates.len())
        .filter(|i| super::grammar::rounds(&view.aggregates[*i]))
        .map(|i| format!(", __m{i}"))
        .collect();
    format!(
        "WITH joined AS (
  SELECT i.__id, i.__t, {asked}, r.__at, r._partition, r._offset{columns}
  FROM asked AS i LEFT JOIN {rows} AS r ON {on}
), ranked AS (SELECT *{rank} FROM joined
), framed AS (SELECT *, {covered} FROM ranked
), results AS (
  SELECT __id, {keys}, COUNT(__at) FILTER (WHERE __at <= __t) AS {SEEN}, MAX(__at) FILTER (WHERE __at <= __t) AS {NEWEST}, MAX(__at) AS {LAST},
    {aggregates}
  FROM framed GROUP BY __id, {keys}
)
SELECT __id, {SEEN}, {NEWEST}, {LAST}, {features}{magnitudes} FROM results",
        asked = key_list(view, "i."),
        rows = firsts(world, view),
        on = on(view),
        covered = covered.join(", "),
        aggregates = aggregates.join(",\n    "),
        features = feature_list(view, &(0..view.features.len()).collect::<Vec<_>>()),
    )
}

/// What a service has of the table with history, and of which row.
pub fn past(world: &World) -> String {
    format!(
        "SELECT i.__id, h.rate AS rate_then, upper(h.label) AS label_then, i.__t AS asked, h.since FROM asked AS i {}",
        world.rates.held("i.__place", "i.__t")
    )
}

fn covers(frame: &Frame, view: &View) -> String {
    let back = |span: &Span| if span.is_zero() { "__t".to_owned() } else { format!("(__t - {})", span.sql(0)) };
    match frame {
        Frame::Range { start, end } => {
            let until = format!("__at <= {}", back(end));
            match (start, view.tile) {
                (None, _) => until,
                (Some(start), None) => format!("__at >= {} AND {until}", back(start)),
                (Some(start), Some((_, tile))) => {
                    let from = format!("CAST({} AS BIGINT)", back(start));
                    // Rounded down, before 1970 too.
                    format!("CAST(__at AS BIGINT) >= {from} - (({from} % {tile}) + {tile}) % {tile} AND {until}")
                }
            }
        }
        Frame::Rows { start: Some(start), end } => format!("__rank > {end} AND __rank <= {}", start + 1),
        Frame::Rows { start: None, end } => format!("__rank > {end}"),
    }
}

impl Aggregate {
    fn over_rows(&self, index: usize) -> String {
        let ordered = matches!(self.function, "first_value" | "last_value" | "nth_value" | "string_agg" | "array_agg")
            && !self.distinct;
        let order = if ordered { " ORDER BY __at, _partition, _offset" } else { "" };
        let mut filter = format!("__w{}", self.window);
        if let Some(own) = &self.filter {
            filter += &format!(" AND ({own})");
        }
        if self.ignore_nulls || (matches!(self.function, "min" | "max") && self.input == Ty::Float) {
            filter += &format!(" AND ({}) IS NOT NULL", self.args[0]);
        }
        // DataFusion's LAST_VALUE overflows on a group that its filter leaves empty; a list of all values has no such case.
        let place = match self.function {
            "first_value" => Some("1"),
            "last_value" => Some("-1"),
            "nth_value" => Some(self.constants[0].as_str()),
            // With GROUP BY its MIN and MAX of doubles keep the first NaN that they meet or skip it; sorted, NaN is the largest.
            "min" if self.input == Ty::Float => Some("1"),
            "max" if self.input == Ty::Float => Some("-1"),
            _ => None,
        };
        let by_value = format!(" ORDER BY {}", self.args.first().map_or("", |a| a));
        let order = if place.is_some() && matches!(self.function, "min" | "max") { by_value.as_str() } else { order };
        let mut text = match place {
            Some(place) => format!(
                "array_element(array_agg({}{order}) FILTER (WHERE {filter}), {place}) AS a{index}",
                self.args[0]
            ),
            None => format!("{} FILTER (WHERE {filter}) AS a{index}", self.call(order)),
        };
        if super::grammar::rounds(self) {
            let size = match self.function {
                "sum" | "avg" => self.function,
                _ => "max",
            };
            let of: Vec<String> = self.args.iter().map(|a| format!("0.0 + abs(CAST({a} AS DOUBLE))")).collect();
            let of = if of.len() == 1 { of[0].clone() } else { format!("greatest({})", of.join(", ")) };
            text += &format!(", {size}({of}) FILTER (WHERE {filter}) AS __m{index}");
        }
        text
    }

    /// Whether DataFusion's window operator computes it as exactly as an ordinary aggregate: it has a sliding form, and
    /// that does not lose digits as rows leave (sums of quarters don't, moments do).
    fn slides(&self, frame: &Frame) -> bool {
        let unbounded = frame.is_unbounded();
        match self.function {
            "first_value" | "last_value" | "nth_value" => self.filter.is_none() && !self.ignore_nulls,
            // It sums in doubles: beside 2^53 a small number is lost, and does not come back when 2^53 leaves.
            "avg" if self.args.iter().any(|arg| arg.contains("big")) => unbounded && !self.distinct,
            "count" | "sum" | "avg" | "min" | "max" => !self.distinct,
            "var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" | "bool_and" | "bool_or" | "bit_and" | "bit_or"
            | "bit_xor" => unbounded,
            _ => false,
        }
    }
}

/// The features that [`windows`] can be asked for: all of whose aggregates slide. A tiled frame's start depends on the
/// instant, which no constant frame says.
pub fn sliding(world: &World, view: &View) -> Vec<usize> {
    let exact = world.shape.doubles == super::events::Doubles::Dyadic;
    if !exact || view.tile.is_some() || world.events.len() >= 400 {
        return vec![];
    }
    let slides = |i: &usize| view.aggregates[*i].slides(&view.windows[view.aggregates[*i].window].frame);
    (0..view.features.len()).filter(|f| view.features[*f].aggregates.iter().all(slides)).collect()
}

/// The view's windows over its rows and a virtual row for each question.
pub fn windows(world: &World, view: &View, features: &[usize]) -> String {
    let keys = key_list(view, "");
    let names = scope(view);
    let columns: String = names.iter().map(|c| format!(", r.{c}")).collect();
    let nulls: String = names.iter().map(|c| format!(", NULL AS {c}")).collect();
    let rank = "ROW_NUMBER() OVER (PARTITION BY i.__id, r.__at ORDER BY r._partition, r._offset)";
    let mut used: Vec<usize> = features.iter().flat_map(|f| view.features[*f].aggregates.clone()).collect();
    used.sort_unstable();
    used.dedup();
    let over = |i: usize| over_virtual_row(&view.aggregates[i], &view.windows[view.aggregates[i].window].frame, i);
    let aggregates: Vec<String> = used.into_iter().map(over).collect();
    format!(
        "WITH base AS (
  SELECT i.__id, {asked}, false AS __virtual, arrow_cast(CAST(r.__at AS BIGINT) * 1000 + CAST({rank} AS BIGINT) - 1, 'Timestamp(Nanosecond, None)') AS __ns{columns}
  FROM asked AS i JOIN {rows} AS r ON {on}
  UNION ALL
  SELECT i.__id, {asked}, true, arrow_cast(CAST(i.__t AS BIGINT) * 1000 + 500, 'Timestamp(Nanosecond, None)'){nulls} FROM asked AS i
), results AS (SELECT __id, {keys}, __virtual, {aggregates} FROM base)
SELECT __id, {features} FROM results WHERE __virtual",
        asked = key_list(view, "i."),
        rows = firsts(world, view),
        on = on(view),
        aggregates = aggregates.join(",\n    "),
        features = feature_list(view, features),
    )
}

fn over_virtual_row(aggregate: &Aggregate, frame: &Frame, index: usize) -> String {
    let frame = match frame {
        Frame::Range { start, end } => {
            let start = start.map_or("UNBOUNDED PRECEDING".to_owned(), |start| format!("{} PRECEDING", start.sql(500)));
            format!("RANGE BETWEEN {start} AND {} PRECEDING", end.sql(1))
        }
        Frame::Rows { start, end } => {
            let start = start.map_or("UNBOUNDED PRECEDING".to_owned(), |start| format!("{} PRECEDING", start + 1));
            format!("ROWS BETWEEN {start} AND {} PRECEDING", end + 1)
        }
    };
    let filter = aggregate.filter.as_ref().map_or(String::new(), |f| format!(" FILTER (WHERE {f})"));
    let call = if aggregate.args.is_empty() { "count(1)".to_owned() } else { aggregate.call("") };
    format!("{call}{filter} OVER (PARTITION BY __id ORDER BY __ns {frame}) AS a{index}")
}

/// Whether a feature is an aggregate whose doubles other engines round, or rests on one.
pub fn inexact(view: &View, feature: usize) -> bool {
    view.features[feature]
        .aggregates
        .iter()
        .any(|a| super::grammar::rounds(&view.aggregates[*a]) || view.aggregates[*a].input == Ty::Float)
}
