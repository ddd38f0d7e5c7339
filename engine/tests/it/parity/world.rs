//! One project with its event stream and the questions put to it. All of it follows from a seed.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Months};
use datafusion::common::ScalarValue;
use parquet::arrow::ArrowWriter;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tidemark_engine::offline::HISTORY;
use tidemark_engine::plan::Project;

use super::events::{self, CITIES, CONTRACT, DAY, Event, Shape};
use super::grammar;
use super::history;
use super::rates::Rates;
use super::view::{Frame, Key, Span, View};

/// Views over one stream: each is a case.
pub const VIEWS: usize = 4;

#[derive(Debug, Clone)]
pub struct World {
    pub seed: u64,
    pub shape: Shape,
    /// In the order of arrival.
    pub events: Vec<Event>,
    pub way: Way,
    pub views: Vec<View>,
    /// For each view, what is asked of it.
    pub spines: Vec<Vec<SpineRow>>,
    pub rates: Rates,
}

/// Which way the events take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From memory into a store, with crashes.
    Memory,
    /// Through the whole house: Avro into the log, decoded, archived as Parquet.
    Log,
    /// The same with Kafka, a schema registry and Redis.
    Services,
}

/// An entity and an instant.
#[derive(Debug, Clone)]
pub struct SpineRow {
    pub keys: Vec<ScalarValue>,
    pub at: i64,
    pub threshold: Option<f64>,
    pub place: Option<&'static str>,
}

impl World {
    /// The world of a seed; its events take the way that is given, or one that is drawn.
    pub fn draw(seed: u64, way: Option<Way>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape::draw(&mut rng);
        let drawn = if rng.random_bool(0.1) { Way::Log } else { Way::Memory };
        let way = way.unwrap_or(drawn);
        let mut events = events::draw(&mut rng, &shape, way == Way::Memory);
        let views: Vec<View> = (0..VIEWS).map(|i| grammar::draw(&mut rng, &shape, format!("v{i}"))).collect();
        let spines: Vec<_> = views.iter().map(|view| spine(&mut rng, &shape, view, &events)).collect();
        let rates = Rates::draw(&mut rng, &shape, &events, &spines);
        if way != Way::Memory && rng.random_bool(0.6) {
            history::part(&mut rng, &shape, &mut events);
        }
        World { seed, shape, events, way, views, spines, rates }
    }

    /// Randomness for how the world is run, apart from what it is.
    pub fn rng(&self, purpose: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed ^ (purpose << 48))
    }

    /// The events that come by the stream: after those of the history.
    pub fn live(&self) -> &[Event] {
        let past = self.events.iter().take_while(|event| event.partition == HISTORY).count();
        &self.events[past..]
    }

    /// Writes the project's files and loads them, as a user's are.
    pub async fn project(&self, folder: &Path) -> Result<Project, String> {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("schemas/events.v1.avsc", CONTRACT);
        let id = if self.shape.event_id { ", event_id = 'event_id'" } else { "" };
        let past = history::write(folder, &self.events);
        // The folder's name is of this run alone, and so is the topic's.
        let run: String = folder.file_name().unwrap().to_string_lossy().replace('.', "");
        write(
            "features/source.sql",
            &format!(
                "CREATE SOURCE events WITH (schema = 'events.v1', timestamp = 'event_time', max_future = '{} us', partitions = 3{id}{past}, topic = 'parity-{}-{run}');\n",
                self.shape.ahead, self.seed
            ),
        );
        let cities_sql = "CREATE EXTERNAL TABLE cities (name VARCHAR, region VARCHAR, weight BIGINT) STORED AS PARQUET LOCATION 'cities.parquet';\n";
        write("features/tables.sql", &format!("{cities_sql}{}", self.rates.definition()));
        for (name, rows) in [("cities.parquet", cities()), ("rates.parquet", self.rates.file())] {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
            writer.write(&rows).unwrap();
            writer.close().unwrap();
        }
        for view in &self.views {
            write(&format!("features/{}.sql", view.name), &format!("{}\n{}", view.sql(), view.service_sql()));
        }
        let project = Project::open(folder, &folder.join("features"))
            .await
            .map_err(|e| format!("the project doesn't load:\n{e}"))?;
        if project.warnings.is_empty() { Ok(project) } else { Err(format!("warnings: {}", project.warnings)) }
    }

    /// The events, a line each.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for e in &self.events {
            let at = instant(e.time);
            let _ = writeln!(
                text,
                "  {}/{} {at} user={:?} card={:?} amount={:?} n={:?} big={:?} price={:?} flag={:?} city={:?} day={:?} seen={:?} id={:?}",
                e.partition,
                e.offset,
                e.user,
                e.card,
                e.amount,
                e.n,
                e.big,
                e.price,
                e.flag,
                e.city,
                e.day,
                e.seen,
                e.id
            );
        }
        text
    }
}

/// The dimension table: one city of the events is not in it, and one of its cities is in no event.
pub fn cities() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("region", DataType::Utf8, true),
        Field::new("weight", DataType::Int64, true),
    ]);
    let names = StringArray::from(vec!["Köln", "", "Lagos", "São Paulo", "Oslo"]);
    let regions = StringArray::from(vec![Some("north"), Some("none"), Some("south"), None, Some("north")]);
    let weights = Int64Array::from(vec![Some(3), None, Some(-2), Some(7), Some(9)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(names), Arc::new(regions), Arc::new(weights)]).unwrap()
}

/// An instant as a person reads it, with its number.
pub fn instant(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(at) => format!("{} ({micros})", at.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
        None => micros.to_string(),
    }
}

impl Span {
    /// The instant this long before another.
    pub fn before(&self, t: i64) -> i64 {
        let at = DateTime::from_timestamp_micros(t).unwrap();
        at.checked_sub_months(Months::new(self.months)).unwrap().timestamp_micros() - self.micros
    }

    fn after(&self, t: i64) -> i64 {
        let at = DateTime::from_timestamp_micros(t).unwrap();
        at.checked_add_months(Months::new(self.months)).unwrap().timestamp_micros() + self.micros
    }

    /// No span of this kind is longer.
    pub fn longest(&self) -> i64 {
        i64::from(self.months) * 31 * DAY + self.micros
    }
}

fn spine(rng: &mut ChaCha8Rng, shape: &Shape, view: &View, events: &[Event]) -> Vec<SpineRow> {
    let mut rows = vec![];
    let entities = rng.random_range(1..=3);
    let instants = if events.len() > 100 { 3 } else { 5 };
    let mut push = |rng: &mut ChaCha8Rng, keys: Vec<ScalarValue>| {
        let at = at(rng, shape, view, events);
        let threshold = if rng.random_bool(0.1) { None } else { Some(0.1 * f64::from(rng.random_range(0..50))) };
        let place = if rng.random_bool(0.9) { CITIES.choose(rng).copied() } else { None };
        rows.push(SpineRow { keys, at, threshold, place });
    };
    for _ in 0..entities {
        let drawn: Vec<ScalarValue> = view.keys.iter().map(|k| k.pool.choose(rng).unwrap().clone()).collect();
        let of_event = events
            .choose(rng)
            .filter(|_| rng.random_bool(0.8))
            .map(|e| view.keys.iter().map(|k| key_of(k, e)).collect());
        let keys = of_event.filter(|keys: &Vec<ScalarValue>| !keys.iter().any(ScalarValue::is_null)).unwrap_or(drawn);
        for _ in 0..instants {
            push(rng, keys.clone());
        }
    }
    let mut odd: Vec<ScalarValue> = view.keys.iter().map(|k| k.pool.choose(rng).unwrap().clone()).collect();
    let last = odd.len() - 1;
    odd[last] = view.keys[last].unseen.clone();
    push(rng, odd.clone());
    odd[last] = ScalarValue::try_from(&odd[last].data_type()).unwrap();
    push(rng, odd);
    rows
}

/// The key that an event is about.
fn key_of(key: &Key, event: &Event) -> ScalarValue {
    match key.expr.as_str() {
        "user_id" => ScalarValue::Int64(event.user),
        "user_id % 2" => ScalarValue::Int64(event.user.map(|user| user % 2)),
        "card" => ScalarValue::Utf8(event.card.map(str::to_owned)),
        "flag" => ScalarValue::Boolean(event.flag),
        "day" => ScalarValue::Date32(event.day),
        "price" => ScalarValue::Decimal128(event.price, 12, 2),
        "n" => ScalarValue::Int32(event.n),
        other => panic!("no key {other}"),
    }
}

fn at(rng: &mut ChaCha8Rng, shape: &Shape, view: &View, events: &[Event]) -> i64 {
    let unit = shape.scale.unit;
    let newest = events.iter().map(|e| e.time).max().unwrap_or(shape.base);
    let nudge = *[0, 0, 0, 1, -1].choose(rng).unwrap();
    let Some(event) = events.choose(rng) else { return shape.base + rng.random_range(-unit..unit) };
    match rng.random_range(0..20) {
        0..4 => event.time + nudge,
        // On the edges of a window.
        4..11 => {
            let edges: Vec<Span> = view
                .windows
                .iter()
                .flat_map(|w| match &w.frame {
                    Frame::Range { start, end } => vec![start.unwrap_or_default(), *end],
                    Frame::Rows { .. } => vec![Span::default()],
                })
                .collect();
            edges.choose(rng).unwrap().after(event.time) + nudge
        }
        11..14 => shape.base + rng.random_range(-unit..26 * unit),
        14..18 => newest + *[0, 0, 1, unit, 3 * unit].choose(rng).unwrap(),
        18 => newest + rng.random_range(0..400) * DAY,
        _ => shape.base - rng.random_range(1..5) * unit,
    }
}
