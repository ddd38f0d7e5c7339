//! W5: the latest row of each user into an online store, and whether it is the latest one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use tidemark_benches::redis_server::RedisServer;
use tidemark_engine::online::{RedisConfig, RedisStore};
use tidemark_engine::plan::Project;
use tidemark_engine::request::Reader;

/// The name under which Tidemark's keys are in Redis.
pub const PROJECT: &str = "w5";
const FEATURES: [&str; 5] = ["f_amount", "f_log", "f_hour", "f_score", "f_risk"];
/// Users whose rows are compared: from the busiest one on.
const USERS: i64 = 2000;

/// Rows by user; a user who has none is not among them.
pub type Rows = BTreeMap<i64, Vec<f64>>;

/// As a request reads them through the engine.
pub fn ours(folder: &Path, redis: &RedisServer) -> Result<Rows> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let project = Project::load(folder, &folder.join("features")).await?;
        let view = project.views.get("latest").context("no view latest")?;
        let config = RedisConfig { url: redis.url(), project: PROJECT.to_owned(), ..RedisConfig::default() };
        let reader = Reader::new(Arc::new(RedisStore::open(&config).await?));
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..USERS));
        let now = chrono::Utc::now().timestamp_micros();
        let answer = reader.view(view, &[keys], &vec![now; USERS as usize]).await?;
        let mut rows: Rows = (0..USERS).map(|user| (user, vec![])).collect();
        for feature in FEATURES {
            let column = answer.values.column_by_name(feature).with_context(|| format!("no column {feature}"))?;
            let column = cast(column, &DataType::Float64)?;
            let values = column.as_primitive::<Float64Type>();
            rows.retain(|user, _| values.is_valid(*user as usize));
            rows.iter_mut().for_each(|(user, row)| row.push(values.value(*user as usize)));
        }
        Ok(rows)
    })
}

/// As the floor writes them: hashes `txn:<user>`.
pub fn floor(redis: &RedisServer) -> Result<Rows> {
    let mut connection = redis.connect()?;
    let mut rows = Rows::new();
    for user in 0..USERS {
        let row: Vec<Option<f64>> =
            redis::cmd("HMGET").arg(format!("txn:{user}")).arg(&FEATURES).query(&mut connection)?;
        if let Some(row) = row.into_iter().collect() {
            rows.insert(user, row);
        }
    }
    Ok(rows)
}

/// What there is to say of both.
pub fn compared(ours: &Rows, floor: &Rows) -> String {
    let wrong = floor.iter().filter(|(user, row)| ours.get(user) != Some(row)).count();
    match (floor.len() == ours.len(), wrong) {
        (true, 0) if !floor.is_empty() => format!("equal for {} users", floor.len()),
        _ => format!("{wrong} of {} users differ", floor.len().max(ours.len())),
    }
}
