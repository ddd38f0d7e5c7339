//! Records as Arrow batches: the contract's columns in its order, times as `Timestamp(Microsecond, "UTC")`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use crate::{Click, Error, Result, Transaction, World};

/// Transactions with the columns of their contract.
pub fn transactions_batch(rows: &[Transaction]) -> Result<RecordBatch> {
    batch(
        "transactions",
        [
            ("transaction_id", strings(rows, |row| &row.transaction_id), false),
            ("user_id", integers(rows, |row| row.user_id), false),
            ("card_id", integers(rows, |row| row.card_id), false),
            ("merchant_id", integers(rows, |row| row.merchant_id), false),
            ("amount", doubles(rows, |row| row.amount), false),
            ("currency", strings(rows, |row| row.currency), false),
            ("country", strings(rows, |row| row.country), false),
            ("channel", strings(rows, |row| row.channel), false),
            ("status", strings(rows, |row| row.status), false),
            ("device_id", optional_strings(rows, |row| row.device_id.as_deref()), true),
            ("ip_country", optional_strings(rows, |row| row.ip_country), true),
            ("event_time", instants(rows, |row| row.event_time), false),
        ],
    )
}

/// Clicks with the columns of their contract.
pub fn clicks_batch(rows: &[Click]) -> Result<RecordBatch> {
    let dwell: Int32Array = rows.iter().map(|row| row.dwell_ms).collect();
    batch(
        "clicks",
        [
            ("click_id", strings(rows, |row| &row.click_id), false),
            ("user_id", integers(rows, |row| row.user_id), false),
            ("session_id", strings(rows, |row| &row.session_id), false),
            ("page", strings(rows, |row| row.page), false),
            ("referrer", optional_strings(rows, |row| row.referrer), true),
            ("device_id", strings(rows, |row| &row.device_id), false),
            ("dwell_ms", Arc::new(dwell), true),
            ("event_time", instants(rows, |row| row.event_time), false),
        ],
    )
}

/// The labels of transactions: `transaction_id, user_id, card_id, merchant_id, amount, event_time, is_fraud`.
/// Give each transaction once, without its duplicates.
pub fn labels_batch(rows: &[Transaction]) -> Result<RecordBatch> {
    let is_fraud: BooleanArray = rows.iter().map(|row| Some(row.is_fraud)).collect();
    batch(
        "labels",
        [
            ("transaction_id", strings(rows, |row| &row.transaction_id), false),
            ("user_id", integers(rows, |row| row.user_id), false),
            ("card_id", integers(rows, |row| row.card_id), false),
            ("merchant_id", integers(rows, |row| row.merchant_id), false),
            ("amount", doubles(rows, |row| row.amount), false),
            ("event_time", instants(rows, |row| row.event_time), false),
            ("is_fraud", Arc::new(is_fraud), false),
        ],
    )
}

/// The merchants table: `merchant_id, name, category, country, risk_score, typical_amount`.
pub fn merchants_batch(world: &World) -> Result<RecordBatch> {
    let rows = world.merchants();
    batch(
        "merchants",
        [
            ("merchant_id", integers(rows, |row| row.merchant_id), false),
            ("name", strings(rows, |row| &row.name), false),
            ("category", strings(rows, |row| row.category), false),
            ("country", strings(rows, |row| row.country), false),
            ("risk_score", doubles(rows, |row| row.risk_score), false),
            ("typical_amount", doubles(rows, |row| row.typical_amount), false),
        ],
    )
}

fn batch<const N: usize>(what: &'static str, columns: [(&str, ArrayRef, bool); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns).map_err(|source| Error::Batch { what, source })
}

fn strings<'a, T>(rows: &'a [T], of: impl Fn(&'a T) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn optional_strings<'a, T>(rows: &'a [T], of: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

fn integers<T>(rows: &[T], of: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
}

fn doubles<T>(rows: &[T], of: impl Fn(&T) -> f64) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(rows.iter().map(of)))
}

fn instants<T>(rows: &[T], of: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
}
