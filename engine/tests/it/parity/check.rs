//! Runs a world and compares its answers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use tidemark_engine::request::{Answer, ReadStatus, Reader};

use super::coverage::Coverage;
use super::engine::{self, Run};
use super::events::Doubles;
use super::oracle::{self, LAST, NEWEST, SEEN};
use super::retention::Retention;
use super::view::{Aggregate, View};
use super::world::{SpineRow, World, instant};

/// A difference, with the view that it is in.
#[derive(Debug)]
pub struct Failure {
    pub view: Option<usize>,
    pub message: String,
}

impl Failure {
    fn of(view: usize) -> impl Fn(String) -> Failure {
        move |message| Failure { view: Some(view), message }
    }
}

/// Runs every case of a world; the first difference ends it.
pub async fn run(world: &World, plain: &SessionContext, coverage: &mut Coverage) -> Result<(), Failure> {
    let whole = |message: String| Failure { view: None, message };
    let folder = tempfile::tempdir().map_err(|e| whole(e.to_string()))?;
    let project = Arc::new(world.project(folder.path()).await.map_err(whole)?);
    let mut run = Run::default();
    let streamed = engine::stream(world, &project, folder.path(), &mut run).await.map_err(whole)?;
    let reader = Reader::new(streamed.store);
    oracle::load_events(plain, world, &project.sources["events"].schema);
    coverage.world(world, &run);
    for (index, (view, spine)) in world.views.iter().zip(&world.spines).enumerate() {
        let failed = Failure::of(index);
        let service = &project.services[&format!("s_{}", view.name)];
        let online = engine::online(&reader, service, view, spine).await.map_err(&failed)?;
        let direct = engine::online_view(&reader, &project.views[&view.name], view, spine).await.map_err(&failed)?;
        let little = (world.seed + index as u64).is_multiple_of(3);
        let offline = engine::offline(&streamed.archive, &project, service, view, spine, little).await;
        let (offline, mut ran) = offline.map_err(&failed)?;
        // A row alone needs less of a history than all do, and gets what it gets among them.
        for row in (0..spine.len()).step_by(5).filter(|_| world.live().len() < world.events.len()) {
            let alone = engine::offline(&streamed.archive, &project, service, view, &spine[row..=row], little).await;
            let (alone, one) = alone.map_err(&failed)?;
            if alone.columns() != offline.slice(row, 1).columns() {
                return Err(failed(format!("row {row} alone: {alone:?}, among others: {:?}", offline.slice(row, 1))));
            }
            ran.skipped |= one.skipped;
        }
        for (what, is) in [
            ("training set: spilled", ran.spilled),
            ("training set: a bucket too large", ran.shared_out),
            ("training set: row groups of a history left out", ran.skipped),
            ("training set: events in order", ran.in_order),
            ("training set: events in order, spilled", ran.in_order && ran.spilled),
        ] {
            if is {
                coverage.count(what);
            }
        }
        oracle::load_spine(plain, view, spine);
        let truth =
            by_id(&oracle::run(plain, &oracle::frames(world, view)).await.map_err(&failed)?).map_err(&failed)?;
        let mut case = Case { world, view, spine, online: &online, offline: &offline, coverage };
        case.same_online(&direct).map_err(&failed)?;
        let mut retention = Retention::new(world, view);
        case.statuses(&truth, &mut retention, plain).await.map_err(&failed)?;
        case.online_is_offline().map_err(&failed)?;
        if view.past.is_some() {
            let past = by_id(&oracle::run(plain, &oracle::past(world)).await.map_err(&failed)?).map_err(&failed)?;
            case.past(&past).map_err(&failed)?;
        }
        let all: Vec<usize> = (0..view.features.len()).collect();
        case.plain(&truth, &all, true).map_err(&failed)?;
        let sliding = oracle::sliding(world, view);
        if !sliding.is_empty() {
            let slid = by_id(&oracle::run(plain, &oracle::windows(world, view, &sliding)).await.map_err(&failed)?)
                .map_err(&failed)?;
            case.plain(&slid, &sliding, false).map_err(&failed)?;
            case.coverage.count("oracle: window expressions");
        }
        case.coverage.count("oracle: one aggregate a frame");
        case.coverage.view(view);
    }
    Ok(())
}

/// The rows of an answer by the question's number.
fn by_id(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let ids = batch.column_by_name("__id").ok_or("no __id")?.as_primitive::<Int64Type>();
    let places: HashMap<i64, u32> = ids.values().iter().zip(0u32..).map(|(id, row)| (*id, row)).collect();
    let order: arrow::array::UInt32Array = (0..batch.num_rows() as i64).map(|id| places.get(&id).copied()).collect();
    if order.null_count() > 0 {
        return Err("an answer is missing".into());
    }
    arrow::compute::take_record_batch(batch, &order).map_err(|e| e.to_string())
}

struct Case<'a> {
    world: &'a World,
    view: &'a View,
    spine: &'a [SpineRow],
    online: &'a Answer,
    offline: &'a RecordBatch,
    coverage: &'a mut Coverage,
}

impl Case<'_> {
    fn status(&self, row: usize) -> ReadStatus {
        self.online.views[0].status[row]
    }

    fn has_null_key(&self, row: usize) -> bool {
        self.spine[row].keys.iter().any(ScalarValue::is_null)
    }

    fn place(&self, row: usize, column: &str) -> String {
        let keys: Vec<String> = self.spine[row].keys.iter().map(|k| format!("{k:?}")).collect();
        format!("column {column}, key {}, as of {}", keys.join(" | "), instant(self.spine[row].at))
    }

    /// A service and a view read the same.
    fn same_online(&self, direct: &Answer) -> Result<(), String> {
        for feature in &self.view.features {
            let (service, view) = (value(&self.online.values, &feature.name)?, value(&direct.values, &feature.name)?);
            for row in 0..self.spine.len() {
                let (service, view) = (service(row)?, view(row)?);
                if service != view {
                    return Err(format!(
                        "{}: the service reads {service:?}, the view {view:?}",
                        self.place(row, &feature.name)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Every status is the right one, and OUTSIDE_RETENTION stands only where something is really missing.
    async fn statuses(
        &mut self,
        truth: &RecordBatch,
        retention: &mut Retention<'_>,
        plain: &SessionContext,
    ) -> Result<(), String> {
        let number = |name: &str| -> Result<_, String> { Ok(truth.column_by_name(name).ok_or(name)?.clone()) };
        let (seen, newest, last) = (number(SEEN)?, number(NEWEST)?, number(LAST)?);
        let instants = |array: &arrow::array::ArrayRef, row: usize| -> Option<i64> {
            array.is_valid(row).then(|| array.as_primitive::<TimestampMicrosecondType>().value(row))
        };
        for row in 0..self.spine.len() {
            let status = self.status(row);
            self.coverage.count(&format!("status {}", status.as_str()));
            let seen = seen.as_primitive::<Int64Type>().value(row) > 0;
            let t = self.spine[row].at;
            let wrong = |expected: &str| {
                Err(format!("{}: status {}, expected {expected}", self.place(row, "*"), status.as_str()))
            };
            match status {
                _ if self.has_null_key(row) => {
                    if status != ReadStatus::NullKey {
                        return wrong("NULL_KEY");
                    }
                }
                ReadStatus::NullKey => return wrong("another one: no part of the key is NULL"),
                ReadStatus::OutsideRetention => {
                    if instants(&last, row).is_none_or(|last| last <= t) {
                        return wrong("PRESENT or NOT_FOUND: nothing is newer than the instant");
                    }
                    if !retention.justified(&self.spine[row], plain).await? {
                        return wrong("PRESENT or NOT_FOUND: nothing that a frame reaches is older than the cut");
                    }
                }
                ReadStatus::Present if !seen => return wrong("NOT_FOUND: there is no event at or before the instant"),
                ReadStatus::NotFound if seen => return wrong("PRESENT: there are events at or before the instant"),
                ReadStatus::Present | ReadStatus::NotFound => {
                    let age = instants(&newest, row).map(|newest| t - newest);
                    let found = self.online.views[0].age[row];
                    // Of what is in partial states only the ends are known, so that an age in the past is a bound, or unknown.
                    let partial = self.view.tile.is_some()
                        || self.view.lateness.as_ref().is_none_or(|l| l.1 < 1000 * super::events::DAY);
                    let past = instants(&last, row).is_some_and(|last| last > t);
                    let wrong = if partial && past { found.is_some() && found < age } else { found != age };
                    if wrong {
                        return Err(format!("{}: age {found:?}, expected {age:?}", self.place(row, "*")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Bit for bit, wherever the store has it.
    fn online_is_offline(&mut self) -> Result<(), String> {
        let names = self.view.features.iter().map(|f| f.name.as_str()).chain(["computed"]);
        for name in names {
            let (online, offline) = (value(&self.online.values, name)?, value(self.offline, name)?);
            for row in 0..self.spine.len() {
                let (online, offline) = (online(row)?, offline(row)?);
                let expected = match self.status(row) {
                    ReadStatus::OutsideRetention if name != "computed" => {
                        ScalarValue::try_from(&offline.data_type()).map_err(|e| e.to_string())?
                    }
                    ReadStatus::OutsideRetention => continue,
                    _ => offline.clone(),
                };
                if online != expected || online.data_type() != offline.data_type() {
                    return Err(format!(
                        "{}: online {online:?} ({}), the training set {offline:?} ({})",
                        self.place(row, name),
                        self.status(row).as_str(),
                        offline.data_type()
                    ));
                }
                if name != "computed" && self.has_null_key(row) && !offline.is_null() {
                    return Err(format!("{}: {offline:?} for a key that is NULL", self.place(row, name)));
                }
                self.coverage.count("values online = offline");
            }
        }
        Ok(())
    }

    /// What the service has of the table with history: the same online, in the training set and in plain DataFusion, also where
    /// the view has nothing.
    fn past(&mut self, truth: &RecordBatch) -> Result<(), String> {
        let since = value(truth, "since")?;
        for name in ["rate_then", "label_then", "asked"] {
            let (online, offline) = (value(&self.online.values, name)?, value(self.offline, name)?);
            let plain = value(truth, name)?;
            for row in 0..self.spine.len() {
                let (online, offline, plain) = (online(row)?, offline(row)?, plain(row)?);
                if online != offline || offline != plain || online.data_type() != offline.data_type() {
                    return Err(format!(
                        "{} ({:?}): online {online:?}, the training set {offline:?}, plain DataFusion {plain:?}",
                        self.place(row, name),
                        self.spine[row].place
                    ));
                }
                self.coverage.count("values of a table with history, all three");
            }
        }
        for (row, asked) in self.spine.iter().enumerate() {
            let age = match since(row)? {
                ScalarValue::TimestampMicrosecond(Some(since), _) => Some(asked.at - since),
                _ => None,
            };
            self.coverage.count(match (age, asked.place) {
                (None, None) => "as of a request: no key",
                (None, Some(_)) => "as of a request: no row",
                (Some(0), _) => "as of a request: a row's own instant",
                (age, _) if age == self.world.rates.max_age => "as of a request: a row at its oldest",
                _ => "as of a request: a row",
            });
        }
        Ok(())
    }

    /// As plain DataFusion has it.
    fn plain(&mut self, truth: &RecordBatch, features: &[usize], sized: bool) -> Result<(), String> {
        let doubles = self.world.shape.doubles;
        for index in features.iter().copied() {
            let feature = &self.view.features[index];
            let (offline, plain) = (value(self.offline, &feature.name)?, value(truth, &feature.name)?);
            let aggregate = &self.view.aggregates[feature.aggregates[0]];
            if let Some(why) = incomparable(self.view, index, doubles) {
                self.coverage.count(&format!("not held against plain DataFusion: {why}"));
                continue;
            }
            let size_name = format!("__m{}", feature.aggregates[0]);
            let size = if sized && truth.column_by_name(&size_name).is_some() {
                Some(value(truth, &size_name)?)
            } else {
                None
            };
            for row in 0..self.spine.len() {
                if self.has_null_key(row) {
                    continue;
                }
                let (ours, theirs) = (offline(row)?, plain(row)?);
                let size = match &size {
                    Some(size) => match size(row)? {
                        ScalarValue::Float64(size) => size,
                        other => return Err(format!("{size_name} is {other:?}")),
                    },
                    None => None,
                };
                if overflows(aggregate, doubles, size) {
                    self.coverage.count("not held against plain DataFusion: its sum may overflow half way");
                    continue;
                }
                if !close(&ours, &theirs, aggregate, size) {
                    let form = if sized { "one aggregate a frame" } else { "window expressions" };
                    return Err(format!(
                        "{}: ours {ours:?} ({}), plain DataFusion ({form}) {theirs:?} ({})",
                        self.place(row, &feature.name),
                        ours.data_type(),
                        theirs.data_type()
                    ));
                }
                self.coverage.count("values = plain DataFusion");
            }
        }
        Ok(())
    }
}

/// Why a feature can't be compared with another engine's.
fn incomparable(view: &View, feature: usize, doubles: Doubles) -> Option<&'static str> {
    let feature_of = &view.features[feature];
    let aggregate = &view.aggregates[feature_of.aggregates[0]];
    let moments = super::grammar::rounds(aggregate) && !matches!(aggregate.function, "sum" | "avg");
    if doubles != Doubles::Dyadic && !feature_of.plain() && oracle::inexact(view, feature) {
        // A difference of two rounded sums has no digits of its own, a comparison may go either way.
        return Some("an expression over doubles that it rounds");
    }
    if moments && doubles == Doubles::Huge && aggregate.reads_doubles() {
        return Some("moments of doubles whose squares overflow");
    }
    let pairs = aggregate.args.len() == 2;
    if moments && pairs && doubles != Doubles::Dyadic {
        return Some("co-moments of doubles that it rounds");
    }
    None
}

/// A sum whose parts are finite may pass through infinity on the way in another engine; ours is exact.
fn overflows(aggregate: &Aggregate, doubles: Doubles, size: Option<f64>) -> bool {
    let sums = matches!(aggregate.function, "sum" | "avg") && aggregate.reads_doubles();
    sums && doubles == Doubles::Huge && size.is_some_and(|size| !size.is_finite())
}

fn close(ours: &ScalarValue, theirs: &ScalarValue, aggregate: &Aggregate, size: Option<f64>) -> bool {
    match (ours, theirs) {
        // The population variance of one infinity or NaN: DataFusion says 0 without a GROUP BY and NaN with one.
        (ScalarValue::Float64(Some(0.0)), ScalarValue::Float64(Some(b)))
            if b.is_nan() && aggregate.function.ends_with("_pop") =>
        {
            size.is_some_and(|size| !size.is_finite())
        }
        (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
            let size = size.filter(|s| s.is_finite()).unwrap_or(0.0);
            let slack = match aggregate.function {
                // Of the sum of the magnitudes: what cancels leaves no digits.
                "sum" | "avg" => 1e-9 * size,
                // Of the squares, next to which a small variance has lost digits.
                "stddev_samp" | "stddev_pop" => return near(a * a, b * b, 1e-12 * size * size) || near(*a, *b, 0.0),
                _ if super::grammar::rounds(aggregate) => 1e-12 * size * size,
                _ => 0.0,
            };
            near(*a, *b, slack)
        }
        (ScalarValue::List(a), ScalarValue::List(b)) if aggregate.distinct => {
            let sorted = |list: &dyn Array| {
                let mut values: Vec<String> = (0..list.len())
                    .filter_map(|i| ScalarValue::try_from_array(list, i).ok())
                    .map(|v| format!("{v:?}"))
                    .collect();
                values.sort();
                values
            };
            a.is_null(0) == b.is_null(0) && sorted(a.value(0).as_ref()) == sorted(b.value(0).as_ref())
        }
        (ScalarValue::List(a), ScalarValue::List(b)) => {
            a.is_null(0) == b.is_null(0) && (a.is_null(0) || a.value(0).as_ref() == b.value(0).as_ref())
        }
        (a, b) => a == b,
    }
}

fn near(a: f64, b: f64, slack: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= (1e-9 * a.abs().max(b.abs())).max(slack)
}

impl Aggregate {
    fn reads_doubles(&self) -> bool {
        self.input == super::view::Ty::Float
    }
}

type Values<'a> = Box<dyn Fn(usize) -> Result<ScalarValue, String> + 'a>;

/// A column's values by row.
fn value<'a>(batch: &'a RecordBatch, name: &str) -> Result<Values<'a>, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name} in {}", batch.schema()))?;
    Ok(Box::new(move |row| ScalarValue::try_from_array(column, row).map_err(|e| e.to_string())))
}
