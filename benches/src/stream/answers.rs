//! What the answers must be, computed the plain way, and whether they are: a fast wrong answer is no figure.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Float64Type, Int64Type};
use serde::Serialize;
use tidemark_engine::online::{RedisConfig, RedisStore};
use tidemark_engine::request::Reader;

use crate::project::Scratch;
use tidemark_benches::redis_server::RedisServer;

const HOUR: i64 = 3_600_000_000;
/// How far back the views can be read for sure: their `lateness`, less what this run takes.
const READABLE: i64 = 20 * HOUR;
/// Users whose answers are read through the engine.
const SAMPLE: usize = 500;
/// Sums are rounded once here and in the engine; the peers add and subtract.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    pub user: i64,
    pub amount: f64,
    /// Microseconds.
    pub at: i64,
    pub approved: bool,
}

/// All transactions in the order of event time: none of the peers takes late ones right.
#[derive(Debug)]
pub struct Events(Vec<Transaction>);

/// Count, sum, mean and maximum of one hour and of 24 hours, at a user's last event.
pub type Values = [f64; 8];

/// How answers compared with what they must be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    pub users: usize,
    pub missing: usize,
    pub wrong: usize,
}

impl Checked {
    pub fn right(&self) -> bool {
        self.users > 0 && self.missing == 0 && self.wrong == 0
    }
}

impl Events {
    pub fn new(mut transactions: Vec<Transaction>) -> Events {
        transactions.sort_by_key(|transaction| transaction.at);
        Events(transactions)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first so many as JSON lines, as the peers read them.
    pub fn write_json_lines(&self, path: &Path, n: usize) -> Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for Transaction { user, amount, at, .. } in self.0.iter().take(n) {
            writeln!(file, r#"{{"user_id":{user},"amount":{amount:?},"event_time":{}}}"#, at.div_euclid(1000))?;
        }
        Ok(file.flush()?)
    }

    /// What must be there after the first so many, at each user's last instant, which is cut to `unit` microseconds.
    pub fn expected(&self, n: usize, unit: i64, keep: impl Fn(&Transaction) -> bool) -> BTreeMap<i64, (i64, Values)> {
        let mut users: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
        for transaction in self.0.iter().take(n).filter(|transaction| keep(transaction)) {
            let at = transaction.at.div_euclid(unit) * unit;
            users.entry(transaction.user).or_default().push((at, transaction.amount));
        }
        let of = |events: Vec<(i64, f64)>| {
            let last = events.last().map_or(0, |(at, _)| *at);
            let [a, b, c, d] = window(&events, last - HOUR);
            let [e, f, g, h] = window(&events, last - 24 * HOUR);
            (last, [a, b, c, d, e, f, g, h])
        };
        users.into_iter().map(|(user, events)| (user, of(events))).collect()
    }
}

fn window(events: &[(i64, f64)], from: i64) -> [f64; 4] {
    let inside = || events.iter().filter(|(at, _)| *at >= from).map(|(_, amount)| *amount);
    let (count, sum) = (inside().count() as f64, inside().sum::<f64>());
    [count, sum, sum / count, inside().fold(f64::NEG_INFINITY, f64::max)]
}

pub fn same(found: &[f64], expected: &[f64]) -> bool {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
    found.len() == expected.len() && found.iter().zip(expected).all(close)
}

/// The shipped view of users' spend, as a request reads it.
pub async fn check_shipped(scratch: &Scratch, name: &str, redis: &RedisServer, events: &Events) -> Result<Checked> {
    let expected = events.expected(events.len(), 1, |transaction| transaction.approved);
    let columns = ["txn_count_1h", "spend_1h", "txn_count_24h", "avg_amount_24h"];
    check(scratch, name, redis, ("user_spend", &columns), &[0, 1, 4, 6], &expected).await
}

/// The peers' view, in the engine's hands.
pub async fn check_single(scratch: &Scratch, name: &str, redis: &RedisServer, events: &Events) -> Result<Checked> {
    let expected = events.expected(events.len(), 1, |_| true);
    let columns = ["cnt_1h", "sum_1h", "avg_1h", "max_1h", "cnt_24h", "sum_24h", "avg_24h", "max_24h"];
    check(scratch, name, redis, ("txn", &columns), &[0, 1, 2, 3, 4, 5, 6, 7], &expected).await
}

/// Reads columns of a view for some users, each at its last event, and compares them with those values.
async fn check(
    scratch: &Scratch,
    name: &str,
    redis: &RedisServer,
    (view, columns): (&str, &[&str]),
    values: &[usize],
    expected: &BTreeMap<i64, (i64, Values)>,
) -> Result<Checked> {
    let project = scratch.load().await?;
    let view = project.views.get(view).with_context(|| format!("no view {view}"))?;
    let config = RedisConfig { url: redis.url(), project: name.to_owned(), ..RedisConfig::default() };
    let reader = Reader::new(Arc::new(RedisStore::open(&config).await?));
    let known_since = chrono::Utc::now().timestamp_micros() - READABLE;
    let recent: Vec<_> = expected.iter().filter(|(_, (last, _))| *last >= known_since).collect();
    let step = (recent.len() / SAMPLE).max(1);
    let some: Vec<(&i64, &(i64, Values))> = recent.into_iter().step_by(step).collect();
    let keys: ArrayRef = Arc::new(some.iter().map(|(user, _)| **user).collect::<Int64Array>());
    let instants: Vec<i64> = some.iter().map(|(_, (last, _))| *last).collect();
    let answer = reader.view(view, &[keys], &instants).await?;
    let mut checked = Checked { users: some.len(), ..Checked::default() };
    for (row, (_, (_, must))) in some.iter().enumerate() {
        let found: Vec<f64> = columns.iter().map(|name| number(&answer.values, name, row)).collect::<Result<_>>()?;
        let must: Vec<f64> = values.iter().filter_map(|at| must.get(*at).copied()).collect();
        checked.wrong += usize::from(!same(&found, &must));
    }
    Ok(checked)
}

/// One value of an answer.
pub fn number(values: &arrow::array::RecordBatch, column: &str, row: usize) -> Result<f64> {
    let array = values.column_by_name(column).with_context(|| format!("no column {column}"))?;
    if array.is_null(row) {
        return Ok(f64::NAN);
    }
    if let Some(array) = array.as_primitive_opt::<Int64Type>() {
        return Ok(array.value(row) as f64);
    }
    match array.as_primitive_opt::<Float64Type>() {
        Some(array) => Ok(array.value(row)),
        None => bail!("column {column} is {}", array.data_type()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_both_ends() {
        let at = |user, at, amount| Transaction { user, at, amount, approved: true };
        let events = Events::new(vec![at(1, HOUR, 2.0), at(1, 0, 4.0), at(1, 24 * HOUR, 1.0), at(2, 5, 7.0)]);
        let found = events.expected(events.len(), 1, |_| true);
        assert_eq!(found[&1], (24 * HOUR, [1.0, 1.0, 1.0, 1.0, 3.0, 7.0, 7.0 / 3.0, 4.0]));
        assert_eq!(found[&2].1[0], 1.0);
        // Without the last one of user 1.
        assert_eq!(events.expected(3, 1, |_| true)[&1].1[..4], [2.0, 6.0, 3.0, 4.0]);
    }
}
