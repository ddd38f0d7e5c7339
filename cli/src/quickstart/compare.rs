//! Rows of a training set against online reads as of the same instants.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimestampMicrosecondType};
use arrow::json::ReaderBuilder;
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value as Json, json};
use tidemark_engine::plan::{FeatureService, Project};

use crate::client::Client;
use crate::settings::Settings;

/// Late events come at most two hours after they happened: before that, live traffic can't change a label's past.
const SETTLED: i64 = 2 * 3_600_000_000;
const DAY: i64 = 24 * 3_600_000_000;
const TIMESTAMP: &str = "label_time";

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    pub rows: u64,
    /// Rows for which the online store no longer holds the past.
    pub outside: u64,
    pub values: u64,
    /// How often the views answered with each status.
    pub statuses: BTreeMap<String, u64>,
    /// One line for each value that differs.
    pub mismatches: Vec<String>,
}

/// Reads `wanted` rows of the training set online, as of their instants, three quarters of them from the last settled
/// day, and compares every feature. A row for which the online store no longer holds the past is counted, not compared.
pub fn sample(client: &Client, service: &FeatureService, training: &Path, end: i64, wanted: usize) -> Result<Compared> {
    let all = read(training)?;
    let instants = instants(&all)?;
    let settled: Vec<u64> = (0..all.num_rows()).filter(|i| instants[*i] < end - SETTLED).map(|i| i as u64).collect();
    let (recent, older): (Vec<u64>, Vec<u64>) =
        settled.into_iter().partition(|i| instants[*i as usize] >= end - SETTLED - DAY);
    let picked: Vec<u64> = spread(&recent, wanted * 3 / 4).chain(spread(&older, wanted / 4)).collect();
    let rows = take_record_batch(&all, &UInt64Array::from(picked))?;
    let at = self::instants(&rows)?;

    let body = json!({ "rows": requests(service, &rows)?, "as_of": at });
    let answer = client.post(&format!("/v1/services/{}", service.name), &body)?;
    let said = answer.json()?;
    let online = features(service, &answer.text)?;
    if online.num_rows() != rows.num_rows() {
        bail!("asked for {} rows, the answer has {}", rows.num_rows(), online.num_rows());
    }
    let mut compared = Compared::default();
    let statuses = statuses(&said, rows.num_rows())?;
    for row in 0..rows.num_rows() {
        let mine: Vec<&str> = statuses.iter().map(|(_, of)| of[row].as_str()).collect();
        mine.iter().for_each(|status| *compared.statuses.entry((*status).to_owned()).or_default() += 1);
        if mine.contains(&"OUTSIDE_RETENTION") {
            compared.outside += 1;
            continue;
        }
        compared.rows += 1;
        for field in service.schema.fields() {
            let (Some(there), Some(here)) = (rows.column_by_name(field.name()), online.column_by_name(field.name()))
            else {
                bail!("feature {} is missing in an answer or in the training set", field.name());
            };
            compared.values += 1;
            if !same(there, here, row) {
                let shown = |c: &ArrayRef| array_value_to_string(c, row).unwrap_or_default();
                compared.mismatches.push(format!(
                    "{} at {}, {}: online {}, training set {}",
                    Json::Array(requests(service, &rows.slice(row, 1))?),
                    at[row],
                    field.name(),
                    shown(here),
                    shown(there)
                ));
            }
        }
    }
    if compared.rows == 0 {
        bail!("no row could be compared: the online store holds none of the sampled instants");
    }
    Ok(compared)
}

/// A request for the customer, card and merchant of a recent label.
pub fn busy_request(scratch: &Settings, project: &Project) -> Result<Map<String, Json>> {
    let service = project
        .services
        .get(super::SERVICE)
        .with_context(|| format!("the project has no service {}", super::SERVICE))?;
    let labels = read(&scratch.root.join("data/labels.parquet"))?;
    let last = labels.slice(labels.num_rows().saturating_sub(1), 1);
    match requests(service, &last)?.pop() {
        Some(Json::Object(row)) => Ok(row),
        _ => bail!("the generator made no labels"),
    }
}

fn read(path: &Path) -> Result<RecordBatch> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// Every n-th, so that about `wanted` remain.
fn spread(rows: &[u64], wanted: usize) -> impl Iterator<Item = u64> {
    rows.iter().copied().step_by(rows.len().div_ceil(wanted.max(1)).max(1))
}

fn instants(rows: &RecordBatch) -> Result<Vec<i64>> {
    let column = rows.column_by_name(TIMESTAMP).with_context(|| format!("no column {TIMESTAMP}"))?;
    let micros = arrow::compute::cast(
        column,
        &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())),
    )?;
    Ok(micros.as_primitive::<TimestampMicrosecondType>().values().to_vec())
}

/// The service's request columns of some rows, as JSON objects.
fn requests(service: &FeatureService, rows: &RecordBatch) -> Result<Vec<Json>> {
    let indices =
        service.signature.fields().iter().map(|f| rows.schema().index_of(f.name())).collect::<Result<Vec<_>, _>>()?;
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    writer.write(&rows.project(&indices)?)?;
    writer.finish()?;
    Ok(serde_json::from_slice(&writer.into_inner())?)
}

/// The features in an answer's text. Arrow reads the numbers, which takes every double exactly.
fn features(service: &FeatureService, text: &str) -> Result<RecordBatch> {
    let row = DataType::Struct(service.schema.fields().clone());
    let list = DataType::List(Arc::new(Field::new("item", row, true)));
    let schema = Arc::new(Schema::new(vec![Field::new("rows", list, true)]));
    let mut reader = ReaderBuilder::new(schema).build(Cursor::new(text))?;
    let answer = reader.next().context("the answer is empty")??;
    let rows = answer.column(0).as_list::<i32>().values().as_struct().clone();
    Ok(RecordBatch::from(rows))
}

/// For each view, the status of each row.
fn statuses(answer: &Json, rows: usize) -> Result<Vec<(String, Vec<String>)>> {
    let views = answer.get("views").and_then(Json::as_object).context("the answer has no `views`")?;
    let mut all = vec![];
    for (view, how) in views {
        let list = how.get("status").and_then(Json::as_array).with_context(|| format!("view {view} has no status"))?;
        let list: Vec<String> = list.iter().filter_map(Json::as_str).map(str::to_owned).collect();
        if list.len() != rows {
            bail!("view {view} answers for {} of {rows} rows", list.len());
        }
        all.push((view.clone(), list));
    }
    Ok(all)
}

/// Equal, and doubles equal in every bit.
fn same(a: &ArrayRef, b: &ArrayRef, row: usize) -> bool {
    if a.data_type() != b.data_type() || a.is_null(row) != b.is_null(row) {
        return false;
    }
    match (a.as_primitive_opt::<Float64Type>(), b.as_primitive_opt::<Float64Type>()) {
        (Some(a), Some(b)) => a.is_null(row) || a.value(row).to_bits() == b.value(row).to_bits(),
        _ => a.slice(row, 1).to_data() == b.slice(row, 1).to_data(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    #[test]
    fn one_bit_is_a_difference_and_null_equals_null() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None, Some(0.0)]));
        let b: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(f64::from_bits(0.1f64.to_bits() + 1)), None, Some(-0.0)]));
        assert_eq!([0, 1, 2].map(|row| same(&a, &b, row)), [false, true, false]);
        assert!([0, 1, 2].iter().all(|row| same(&a, &a.clone(), *row)));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let other: ArrayRef = Arc::new(StringArray::from(vec!["x", "z"]));
        assert_eq!([0, 1].map(|row| same(&text, &other, row)), [true, false]);
        assert!(!same(&a, &text, 0));
    }

    #[test]
    fn a_sample_is_spread_evenly() {
        let rows: Vec<u64> = (0..100).collect();
        assert_eq!(spread(&rows, 4).collect::<Vec<_>>(), [0, 25, 50, 75]);
        assert_eq!(spread(&rows[..3], 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(&[], 10).count(), 0);
    }
}
