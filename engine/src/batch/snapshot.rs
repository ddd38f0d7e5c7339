//! A view's values for every entity at regular instants.
//!
//! Guarantee: a snapshot's values are those that a read of the entity as of the instant gives, since the point-in-time join
//! computes them. Every entity is there whose first event lies at or before the instant, also where its frames are empty; of those
//! that had events only before the horizon of a source's retention nothing is known any more.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, cast as cast_to};
use futures::TryStreamExt;

use super::PointInTimeJoin;
use super::keys::Numbers;
use super::sides::whole;
use super::training::events_plan;
use crate::offline::Past;
use crate::plan::pipeline::{batch, nullable};
use crate::plan::{FeatureView, timestamp_type};

/// The column with the instant that a row's values are of.
pub const SNAPSHOT_TIME: &str = "snapshot_time";

/// The entities of a view, with their first events.
#[derive(Debug)]
pub struct Entities {
    keys: Vec<ArrayRef>,
    first: Vec<i64>,
}

/// Reads a view's events for whom they are about.
pub async fn entities(
    session: &SessionContext,
    view: &FeatureView,
    events: Arc<dyn TableProvider>,
) -> Result<Entities> {
    let (mut numbers, mut first) = (Numbers::new(&view.key_fields())?, vec![]);
    let plan = events_plan([view], events)?;
    let mut rows = session.execute_logical_plan(plan).await?.execute_stream().await?;
    while let Some(events) = rows.try_next().await? {
        let rows = view.rows(&whole(view, &events)?)?;
        let of = numbers.of(&view.key_columns(&rows.keys)?)?;
        first.resize(numbers.count(), i64::MAX);
        for (number, time) in of.into_iter().zip(rows.times.values()) {
            if let Some(first) = first.get_mut(number as usize) {
                *first = (*first).min(*time);
            }
        }
    }
    Ok(Entities { keys: numbers.into_keys()?, first })
}

impl Entities {
    /// The entities that are there at each instant, which come in order.
    fn at(&self, fields: &SchemaRef, instants: &[i64]) -> Result<RecordBatch> {
        let known = |row: &usize| self.keys.iter().all(|key| key.is_valid(*row));
        let (mut parts, mut times) = (vec![], vec![]);
        for instant in instants {
            let there = (0..self.first.len()).filter(|row| self.first[*row] <= *instant).filter(known);
            let there: UInt32Array = there.map(|row| row as u32).collect();
            times.extend(std::iter::repeat_n(*instant, there.len()));
            parts
                .push(self.keys.iter().map(|key| take(key, &there, None)).collect::<std::result::Result<Vec<_>, _>>()?);
        }
        let n = times.len();
        let mut columns = vec![];
        for (place, key) in self.keys.iter().enumerate() {
            let parts: Vec<_> = parts.iter().filter_map(|part| part.get(place)).map(AsRef::as_ref).collect();
            columns.push(if parts.is_empty() { key.slice(0, 0) } else { concat(&parts)? });
        }
        columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
        batch(fields.clone(), columns, n)
    }
}

/// The columns of a view's snapshot: the keys, the instant, the features.
pub fn snapshot_schema(view: &FeatureView) -> SchemaRef {
    let keys = view.keys.iter().map(|key| key.as_ref().clone());
    let time = Field::new(SNAPSHOT_TIME, timestamp_type(), false);
    let features = view.features().map(|feature| feature.as_ref().clone());
    nullable(&Schema::new(keys.chain([time]).chain(features).collect::<Vec<_>>()))
}

/// The values of a view for all of some entities at each of some instants: [`snapshot_schema`], by instant and key.
pub fn snapshot_plan(
    view: &Arc<FeatureView>,
    entities: &Entities,
    instants: &[i64],
    events: &Past,
) -> Result<LogicalPlan> {
    const SPINE: &str = "__entities";
    const VIEW: &str = "__view";
    let keys = view.key_fields();
    let time = Field::new(SNAPSHOT_TIME, timestamp_type(), true);
    let fields = nullable(&Schema::new(keys.iter().cloned().chain([time]).collect::<Vec<_>>()));
    let rows = entities.at(&fields, instants)?;
    let table = MemTable::try_new(fields.clone(), vec![vec![rows]])?;
    let spine = LogicalPlanBuilder::scan(SPINE, provider_as_source(Arc::new(table)), None)?.build()?;
    let of = |relation: &str, name: &str| Expr::Column(Column::new(Some(relation), name));
    let on = keys.iter().map(|key| of(SPINE, key.name())).collect();
    let views = vec![(view.clone(), TableReference::bare(VIEW))];
    let horizon = events.removed.horizon(&view.source.timestamp);
    let events = events_plan([view.as_ref()], events.table.clone())?;
    let join = PointInTimeJoin::try_new(spine, events, views, on, of(SPINE, SNAPSHOT_TIME), horizon)?;
    // A key is the view's own column where it selects it, and the spine's otherwise.
    let key = |(place, field): (usize, &Arc<Field>)| {
        let expr = of(SPINE, &format!("key_{place}"));
        match field.data_type() {
            DataType::Dictionary(_, _) => cast_to(expr, field.data_type().clone()),
            _ => expr,
        }
        .alias(field.name())
    };
    let columns = view.keys.iter().enumerate().map(key);
    let columns = columns.chain([of(SPINE, SNAPSHOT_TIME).alias(SNAPSHOT_TIME)]);
    let columns = columns.chain(view.features().map(|feature| of(VIEW, feature.name()).alias(feature.name())));
    let order = [SNAPSHOT_TIME.to_owned()].into_iter().chain(view.keys.iter().map(|key| key.name().clone()));
    LogicalPlanBuilder::from(LogicalPlan::Extension(Extension { node: Arc::new(join) }))
        .project(columns.collect::<Vec<_>>())?
        .sort(order.map(|name| Expr::Column(Column::from_name(name)).sort(true, false)).collect::<Vec<_>>())?
        .build()
}

/// The instants of a snapshot's rows.
pub fn snapshot_times(rows: &RecordBatch) -> &[i64] {
    let column = rows.column_by_name(SNAPSHOT_TIME).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    column.map_or(&[], |times| times.values())
}
