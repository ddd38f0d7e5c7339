//! VAR and STDDEV from exact moments: `n·Σx² − (Σx)²` is an integer, so nearly equal values lose nothing.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Float64Type;

use super::for_each;
use crate::kernel::big::spread;
use crate::kernel::exact::ExactSum;

/// Count, exact sum and exact sum of squares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    pub count: u64,
    pub sum: ExactSum,
    /// Of the finite values; the sum counts the others.
    pub squares: ExactSum,
}

impl Moments {
    pub fn update(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        let values = column.as_primitive::<Float64Type>().values();
        for_each(mask, range, |row| self.add(values[row]));
    }

    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum.add(value);
        if value.is_finite() {
            self.squares.add_square(value);
        }
    }

    /// Takes back rows that were folded.
    pub fn retract(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        let values = column.as_primitive::<Float64Type>().values();
        for_each(mask, range, |row| self.remove(values[row]));
    }

    pub fn remove(&mut self, value: f64) {
        self.count -= 1;
        self.sum.remove(value);
        if value.is_finite() {
            self.squares.remove_square(value);
        }
    }

    pub fn clear(&mut self) {
        self.count = 0;
        self.sum.clear();
        self.squares.clear();
    }

    pub fn merge(&mut self, other: &Moments) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    pub fn double(&self, sample: bool, root: bool) -> Option<f64> {
        let spread = || match self.sum.is_finite() {
            true => spread(self.count, &self.squares, &self.sum),
            false => (f64::NAN, 0),
        };
        Self::variance(self.count, sample, root, spread)
    }

    /// From `n·Σx² − (Σx)²`, as a double and a power of two. NULL on no rows, and for a sample of one; the population variance of one row is
    /// 0, whatever the row.
    pub fn variance(count: u64, sample: bool, root: bool, spread: impl FnOnce() -> (f64, i32)) -> Option<f64> {
        let variance = match (count, sample) {
            (0, _) | (1, true) => return None,
            (1, false) => 0.0,
            (count, _) => {
                let degrees = if sample { count - 1 } else { count };
                let (numerator, exponent) = spread();
                let variance = numerator / (count as f64 * degrees as f64);
                // In two steps: one power of two may be out of range where the variance is not.
                variance * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2)
            }
        };
        Some(if root { variance.sqrt() } else { variance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variance(values: &[f64]) -> f64 {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        moments.double(true, false).unwrap()
    }

    #[test]
    fn nearly_equal_values_keep_their_variance() {
        // Around 1e15 a double's steps are 1/8: the textbook formula in doubles gives nonsense here.
        assert_eq!(variance(&[1e15, 1e15 + 0.125, 1e15 + 0.25]), 0.015625);
        assert_eq!(variance(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]), 30.0);
        assert_eq!(variance(&[0.1; 7]), 0.0);
        assert!(variance(&[1.0, f64::INFINITY]).is_nan());
    }
}
