//! What a training set's rows are put together by, for a folder with a file for each value.
//!
//! Guarantee: a plan that is sorted by it has the rows of a value in one stretch, in the spine's order.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use chrono::{Datelike, NaiveDate};
use datafusion::functions::datetime::expr_fn::date_trunc;
use datafusion::logical_expr::{Expr, col, lit};

use super::spine::TrainingError;
use crate::plan::service::INSTANT;
use crate::sql::did_you_mean;

const DAY: i64 = 86_400_000_000;

/// What rows are put together by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionBy {
    /// The date of the spine's instant, UTC.
    Day,
    /// The month of it.
    Month,
    /// A column of the set.
    Column(String),
}

impl PartitionBy {
    /// What a person writes: `day`, `month`, or a column.
    pub fn named(text: &str) -> Self {
        match text {
            "day" => Self::Day,
            "month" => Self::Month,
            column => Self::Column(column.to_owned()),
        }
    }

    /// What the values are called in the names of folders, `date=2026-01-31`.
    pub fn label(&self) -> &str {
        match self {
            Self::Day => "date",
            Self::Month => "month",
            Self::Column(name) => name,
        }
    }

    /// The values of a set's rows, in which a month is its first day. `timestamp` is the spine's.
    pub fn values(&self, rows: &RecordBatch, timestamp: &str) -> Option<ArrayRef> {
        let month = |days: i32| {
            let first = NaiveDate::from_num_days_from_ce_opt(days + EPOCH).and_then(|date| date.with_day(1));
            first.map_or(days, |first| first.num_days_from_ce() - EPOCH)
        };
        let dates = || -> Option<Date32Array> {
            let instants = rows.column_by_name(timestamp)?.as_primitive_opt::<TimestampMicrosecondType>()?;
            Some(instants.unary(|at| at.div_euclid(DAY) as i32))
        };
        Some(match self {
            Self::Day => Arc::new(dates()?),
            Self::Month => Arc::new(dates()?.unary::<_, Date32Type>(month)),
            Self::Column(name) => rows.column_by_name(name)?.clone(),
        })
    }

    /// What a plan with these columns is sorted by first.
    pub(super) fn sorted(&self, output: &[Expr]) -> Result<Expr, TrainingError> {
        let Self::Column(name) = self else {
            let unit = if *self == Self::Day { "day" } else { "month" };
            return Ok(date_trunc(lit(unit), col(INSTANT)));
        };
        let names = || {
            output.iter().filter_map(|expr| match expr {
                Expr::Alias(alias) => Some((alias.name.as_str(), alias.expr.as_ref())),
                _ => None,
            })
        };
        let found = names().find(|(known, _)| known == name).map(|(_, expr)| expr.clone());
        found.ok_or_else(|| TrainingError::Partition {
            column: name.clone(),
            has: names().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
            hint: did_you_mean(name, names().map(|(name, _)| name).chain(["day", "month"]))
                .map(|hint| format!("; hint: {hint}"))
                .unwrap_or_default(),
        })
    }
}

/// 1970-01-01, in days since the first of January of year one.
const EPOCH: i32 = 719_163;

impl fmt::Display for PartitionBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Column(name) => name,
        })
    }
}
