//! SUM and AVG: of integers, decimals and durations as one wide integer, of doubles exactly.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float64Type, Int64Type, TimeUnit, UInt64Type,
    i256,
};

use super::compile::Finish;
use super::value::Value;
use super::{for_each, selected};
use crate::kernel::KernelError;
use crate::kernel::exact::ExactSum;

/// A sum modulo 2^256: cut to a column's width it is the wrapping sum that DataFusion computes, and wide enough
/// that an average never wraps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WideSum {
    pub sum: i256,
    pub count: u64,
}

/// An exact sum of doubles.
#[derive(Debug, Clone, Default)]
pub(crate) struct FloatSum {
    pub sum: ExactSum,
    pub count: u64,
}

impl WideSum {
    pub fn update(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        self.count += selected(mask, range.clone()) as u64;
        self.sum = self.sum.wrapping_add(total(column, mask, range));
    }

    /// Takes back rows that were folded.
    pub fn retract(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        self.count -= selected(mask, range.clone()) as u64;
        self.sum = self.sum.wrapping_sub(total(column, mask, range));
    }

    pub fn remove(&mut self, value: &Value) {
        self.sum = self.sum.wrapping_sub(value.wide());
        self.count -= 1;
    }

    pub fn add(&mut self, value: &Value) {
        self.sum = self.sum.wrapping_add(value.wide());
        self.count += 1;
    }

    pub fn merge(&mut self, other: &WideSum) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }

    pub fn finish(&self, finish: &Finish) -> Result<Option<Value>, KernelError> {
        if self.count == 0 {
            return Ok(None);
        }
        let value = match finish {
            Finish::DecimalAverage { scale_up, precision } => self.decimal_average(*scale_up, *precision)?,
            // Of durations, which wrap at 64 bits.
            Finish::Average => i256::from_i128(i128::from(self.sum.as_i128() as i64) / i128::from(self.count)),
            _ => self.sum,
        };
        Ok(Some(Value::Wide(value)))
    }

    fn decimal_average(&self, scale_up: i256, precision: u8) -> Result<i256, KernelError> {
        let count = i256::from_i128(i128::from(self.count));
        self.sum
            .checked_mul(scale_up)
            .and_then(|scaled| scaled.checked_div(count))
            .filter(|average| Decimal256Type::is_valid_decimal_precision(*average, precision))
            .ok_or_else(|| KernelError::Overflow {
                aggregate: "AVG".to_owned(),
                message: format!(
                    "the average of {} decimals doesn't fit {precision} digits (hint: cast the argument to a decimal of fewer digits, \
                     or to DOUBLE)",
                    self.count
                ),
            })
    }
}

impl FloatSum {
    pub fn update(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        self.count += selected(mask, range.clone()) as u64;
        let values = column.as_primitive::<Float64Type>().values();
        for_each(mask, range, |row| self.sum.add(values[row]));
    }

    /// Takes back rows that were folded.
    pub fn retract(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        self.count -= selected(mask, range.clone()) as u64;
        let values = column.as_primitive::<Float64Type>().values();
        for_each(mask, range, |row| self.sum.remove(values[row]));
    }

    pub fn add(&mut self, value: f64) {
        self.sum.add(value);
        self.count += 1;
    }

    pub fn remove(&mut self, value: f64) {
        self.sum.remove(value);
        self.count -= 1;
    }

    pub fn clear(&mut self) {
        self.sum.clear();
        self.count = 0;
    }

    pub fn merge(&mut self, other: &FloatSum) {
        self.sum.merge(&other.sum);
        self.count += other.count;
    }

    pub fn finish(&self, finish: &Finish) -> Option<Value> {
        Self::double(self.sum.value(), self.count, finish).map(Value::from_f64)
    }

    /// What is made of a sum, rounded, and a count.
    pub fn double(sum: f64, count: u64, finish: &Finish) -> Option<f64> {
        match (count, finish) {
            (0, _) => None,
            (count, Finish::Average) => Some(sum / count as f64),
            _ => Some(sum),
        }
    }
}

/// The sum of rows modulo 2^256.
fn total(column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) -> i256 {
    let mut sum = i256::ZERO;
    macro_rules! narrow {
        ($type:ty) => {{
            let values = column.as_primitive::<$type>().values();
            let mut total = 0i128;
            for_each(mask, range, |row| {
                let value = values[row] as i128;
                total = total.checked_add(value).unwrap_or_else(|| {
                    sum = sum.wrapping_add(i256::from_i128(total));
                    value
                });
            });
            sum = sum.wrapping_add(i256::from_i128(total));
        }};
    }
    match column.data_type() {
        DataType::Int64 => narrow!(Int64Type),
        DataType::UInt64 => narrow!(UInt64Type),
        DataType::Decimal32(..) => narrow!(Decimal32Type),
        DataType::Decimal64(..) => narrow!(Decimal64Type),
        DataType::Decimal128(..) => narrow!(Decimal128Type),
        DataType::Duration(TimeUnit::Second) => narrow!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => narrow!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => narrow!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => narrow!(DurationNanosecondType),
        _ => {
            let values = column.as_primitive::<Decimal256Type>().values();
            for_each(mask, range, |row| sum = sum.wrapping_add(values[row]));
        }
    }
    sum
}
