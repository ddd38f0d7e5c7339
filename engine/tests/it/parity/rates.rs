//! A table with history: what a place's rate was over time. Views join it as of their events', services as of the request's
//! instant; [`Rates::held`] says in plain SQL which row that is.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::events::{CITIES, DAY, Event, Shape};
use super::view::Span;
use super::world::{SpineRow, instant};

#[derive(Debug, Clone)]
pub struct Rates {
    /// Of a place and an instant at most one.
    pub rows: Vec<Rate>,
    pub max_age: Option<i64>,
    /// Whether its file has dates in place of instants.
    dates: bool,
}

#[derive(Debug, Clone)]
pub struct Rate {
    pub place: Option<&'static str>,
    pub rate: Option<i64>,
    pub label: &'static str,
    /// Microseconds UTC.
    pub since: i64,
}

impl Rates {
    /// Instants on, and next to, those that are asked for.
    pub fn draw(rng: &mut ChaCha8Rng, shape: &Shape, events: &[Event], spines: &[Vec<SpineRow>]) -> Self {
        let unit = shape.scale.unit;
        let dates = rng.random_bool(0.2);
        let max_age = rng.random_bool(0.6).then(|| (rng.random_range(0..4) * unit / 2).max(1));
        let asked: Vec<&SpineRow> = spines.iter().flatten().collect();
        let mut rows: Vec<Rate> = vec![];
        for n in 0..rng.random_range(0..24) {
            let (place, at) = match rng.random_range(0..8) {
                0..3 => events.choose(rng).map(|e| (e.city, e.time)),
                3..6 => asked.choose(rng).map(|row| (row.place, row.at)),
                _ => None,
            }
            .unwrap_or_else(|| (CITIES.choose(rng).copied(), shape.base + rng.random_range(-3 * unit..26 * unit)));
            let oldest = max_age.filter(|_| rng.random_bool(0.4)).unwrap_or(0);
            let at = at - oldest + *[0, 0, 1, -1].choose(rng).unwrap();
            let since = if dates { at.div_euclid(DAY) * DAY } else { at };
            if place.is_none() || !rows.iter().any(|row| row.place == place && row.since == since) {
                let label = *["low", "high", ""].choose(rng).unwrap();
                rows.push(Rate { place, rate: rng.random_bool(0.9).then_some(n - 3), label, since });
            }
        }
        Self { rows, max_age, dates }
    }

    pub fn definition(&self) -> String {
        let max_age = self.max_age.map_or(String::new(), |age| format!(", max_age '{age} us'"));
        let since = if self.dates { "DATE" } else { "TIMESTAMP" };
        format!(
            "CREATE EXTERNAL TABLE rates (place VARCHAR, rate BIGINT, label VARCHAR, since {since}) \
             STORED AS PARQUET LOCATION 'rates.parquet' OPTIONS (timestamp 'since'{max_age});\n"
        )
    }

    /// As its file has it.
    pub fn file(&self) -> RecordBatch {
        let dates = || self.rows.iter().map(|row| row.since.div_euclid(DAY) as i32).collect::<Vec<_>>();
        let since: ArrayRef = if self.dates { Arc::new(Date32Array::from(dates())) } else { self.since() };
        self.batch(since)
    }

    /// With instants.
    pub fn table(&self) -> RecordBatch {
        self.batch(self.since())
    }

    fn since(&self) -> ArrayRef {
        let since: TimestampMicrosecondArray = self.rows.iter().map(|row| Some(row.since)).collect();
        Arc::new(since.with_timezone("UTC"))
    }

    fn batch(&self, since: ArrayRef) -> RecordBatch {
        let columns: [(&str, ArrayRef, bool); 4] = [
            ("place", Arc::new(self.rows.iter().map(|row| row.place).collect::<StringArray>()), true),
            ("rate", Arc::new(self.rows.iter().map(|row| row.rate).collect::<Int64Array>()), true),
            ("label", Arc::new(self.rows.iter().map(|row| Some(row.label)).collect::<StringArray>()), true),
            ("since", since, true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    /// A join of `rates` as `h` to a row, as of an instant, in the words of any SQL.
    pub fn held(&self, place: &str, instant: &str) -> String {
        let age = self.max_age.map_or(String::new(), |micros| {
            format!(" AND {instant} <= h.since + {}", Span { months: 0, micros }.sql(0))
        });
        format!(
            "LEFT JOIN (SELECT *, LEAD(since) OVER (PARTITION BY place ORDER BY since) AS until FROM rates) AS h \
             ON h.place = {place} AND h.since <= {instant} AND (h.until IS NULL OR {instant} < h.until){age}"
        )
    }

    /// The same in the words of definitions.
    pub fn asof(place: &str, instant: &str) -> String {
        format!("ASOF JOIN rates AS h MATCH_CONDITION ({instant} >= h.since) ON h.place = {place}")
    }

    /// Whether a row of a place begins so long before an instant.
    pub fn has(&self, place: Option<&str>, at: i64, before: i64) -> bool {
        place.is_some() && self.rows.iter().any(|row| row.place == place && row.since == at - before)
    }

    /// The rows, a line each.
    pub fn text(&self) -> String {
        let mut text = self.definition();
        for Rate { place, rate, label, since } in &self.rows {
            let _ = writeln!(text, "  {} place={place:?} rate={rate:?} label={label:?}", instant(*since));
        }
        text
    }
}
