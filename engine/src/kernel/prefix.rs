//! Sums of doubles over any rows of a column, from what the rows before each come to.
//!
//! Guarantee: the bits that [`FloatSum`] and [`Moments`] give. Doubles whose exponents lie near each other, as those of a column do, are
//! whole numbers of one unit, `2^unit`, so that a few words hold their sums exactly; and what a range comes to is a difference of two of
//! those, which may wrap as long as the range's own sum doesn't.

use std::iter::once;
use std::ops::Range;

use arrow::array::AsArray;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Float64Type, i256};

use super::big::nearest;
use super::exact::{BIAS, LIMB_BITS};
use super::fold::{Finish, FloatSum, Input, Moments};

/// The units with which neither a sum nor a square leaves the normal doubles.
const UNITS: Range<i32> = -450..400;
/// Bits of a double's mantissa, and what its exponent is above the mantissa's own.
const MANTISSA: i32 = 53;
const EXPONENT: i32 = 1075;

/// What the rows before each come to, and all of them.
#[derive(Debug)]
pub(super) struct Prefix {
    unit: i32,
    sums: Vec<i128>,
    /// Sums of squares, where a variance is asked for.
    squares: Vec<i256>,
    /// How many of the rows count; all of them if this is empty.
    counts: Vec<u32>,
}

impl Prefix {
    /// Nothing, where a value isn't finite or the values are too far apart.
    pub fn new(input: &Input, squares: bool) -> Option<Self> {
        let values = input.args.first()?.as_primitive_opt::<Float64Type>()?.values();
        let mask = input.mask.as_ref();
        let (low, high) = exponents(values, mask)?;
        let unit = low - EXPONENT;
        let (width, rows) = (high - low + MANTISSA, values.len().checked_ilog2().map_or(0, |bits| bits as i32 + 1));
        // A variance needs the square of a sum.
        let fits = width + rows < 127 && (!squares || 2 * (width + rows) < 255) && UNITS.contains(&unit);
        if !fits {
            return None;
        }
        let counted = |row: usize| mask.is_none_or(|mask| mask.value(row));
        let wholes = || values.iter().enumerate().map(|(row, v)| if counted(row) { whole(*v, low) } else { 0 });
        let square = |whole: i128| i256::from_i128(whole).wrapping_mul(i256::from_i128(whole));
        let squares = if squares { sums(i256::ZERO, wholes().map(square), i256::wrapping_add) } else { vec![] };
        let counts = mask.map(|mask| sums(0, mask.iter().map(u32::from), u32::wrapping_add)).unwrap_or_default();
        Some(Self { unit, sums: sums(0, wholes(), i128::wrapping_add), squares, counts })
    }

    /// What a row takes.
    pub fn bytes(squares: bool) -> usize {
        size_of::<i128>() + size_of::<u32>() + if squares { size_of::<i256>() } else { 0 }
    }

    /// A sum, an average or a variance of some rows.
    pub fn double(&self, rows: Range<usize>, finish: &Finish) -> Option<f64> {
        let sum = self.sums[rows.end].wrapping_sub(self.sums[rows.start]);
        let count = match self.counts.is_empty() {
            true => rows.len() as u64,
            false => u64::from(self.counts[rows.end] - self.counts[rows.start]),
        };
        let Finish::Variance { sample, root } = finish else {
            return FloatSum::double(sum as f64 * 2f64.powi(self.unit), count, finish);
        };
        let spread = || {
            let squares = self.squares[rows.end].wrapping_sub(self.squares[rows.start]);
            let sum = i256::from_i128(sum);
            let spread = squares.wrapping_mul(i256::from_i128(i128::from(count))).wrapping_sub(sum.wrapping_mul(sum));
            (rounded(spread), 2 * self.unit)
        };
        Moments::variance(count, *sample, *root, spread)
    }
}

/// The least and the greatest exponent of values that aren't zero, as doubles have them.
fn exponents(values: &[f64], mask: Option<&BooleanBuffer>) -> Option<(i32, i32)> {
    let (mut low, mut high) = (u64::MAX, 0);
    for (row, value) in values.iter().enumerate() {
        if *value != 0.0 && mask.is_none_or(|mask| mask.value(row)) {
            let exponent = value.to_bits() >> 52 & 0x7ff;
            (low, high) = (low.min(exponent), high.max(exponent));
        }
    }
    match (low, high) {
        // All are zero.
        (u64::MAX, _) => Some((EXPONENT, EXPONENT)),
        // Infinities and NaNs, and what is less than a normal number.
        (_, 0x7ff) | (0, _) => None,
        (low, high) => Some((low as i32, high as i32)),
    }
}

/// How often a value, which is zero or normal, has the unit in it that belongs to an exponent.
fn whole(value: f64, low: i32) -> i128 {
    let bits = value.to_bits();
    if value == 0.0 {
        return 0;
    }
    let mantissa = i128::from(bits & ((1 << 52) - 1) | 1 << 52) << ((bits >> 52 & 0x7ff) as i32 - low);
    if bits >> 63 == 1 { -mantissa } else { mantissa }
}

/// What the values before each come to, and all of them.
fn sums<T: Copy>(zero: T, values: impl Iterator<Item = T>, add: impl Fn(T, T) -> T) -> Vec<T> {
    let sums = values.scan(zero, |sum, value| {
        *sum = add(*sum, value);
        Some(*sum)
    });
    once(zero).chain(sums).collect()
}

/// The nearest double of a number that isn't negative, ties to even.
fn rounded(number: i256) -> f64 {
    let (low, high) = number.to_parts();
    let words = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
    let mut digits = [0; 8];
    for (digits, word) in digits.chunks_exact_mut(2).zip(words) {
        digits.copy_from_slice(&[word as u32, (word >> 32) as u32]);
    }
    // Zero has none.
    nearest(false, BIAS / LIMB_BITS, &digits).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Doubles of a few magnitudes, with ties, zeros of both signs and some that cancel.
    fn column(random: &mut ChaCha8Rng) -> Vec<f64> {
        let (middle, width) = (random.random_range(-440..390), [1, 8, 40][random.random_range(0..3)]);
        let mut values: Vec<f64> = vec![];
        for _ in 0..random.random_range(0..60) {
            let exponent = (1023 + middle + random.random_range(0..width)) as u64;
            let bits = random.next_u64() & (1 << 63 | ((1 << 52) - 1)) | exponent << 52;
            values.push(match random.random_range(0..8) {
                0 => 0.0,
                1 => -0.0,
                2 => values.last().map_or(1.0, |last| -last),
                3 => values.last().copied().unwrap_or(1.0),
                // Few digits.
                4 => f64::from_bits(bits & !((1 << 45) - 1)),
                _ => f64::from_bits(bits),
            });
        }
        values
    }

    #[test]
    fn any_range_comes_to_what_the_exact_sums_give() {
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let mut short = 0;
        for case in 0..3_000 {
            let values = column(&mut random);
            let mask: Option<BooleanBuffer> =
                (case % 2 == 0).then(|| values.iter().map(|_| random.random_range(0..4) > 0).collect());
            let input = Input { args: vec![Arc::new(Float64Array::from(values.clone()))], mask: mask.clone() };
            let column = &input.args[0];
            let Some(prefix) = Prefix::new(&input, true) else { continue };
            short += 1;
            for _ in 0..20 {
                let start = random.random_range(0..=values.len());
                let rows = start..random.random_range(start..=values.len());
                let (mut sum, mut moments) = (FloatSum::default(), Moments::default());
                sum.update(column, mask.as_ref(), rows.clone());
                moments.update(column, mask.as_ref(), rows.clone());
                let bits = |value: Option<f64>| value.map(f64::to_bits);
                for finish in [Finish::Sum, Finish::Average] {
                    let expected = FloatSum::double(sum.sum.value(), sum.count, &finish);
                    assert_eq!(bits(prefix.double(rows.clone(), &finish)), bits(expected), "case {case}: {rows:?}");
                }
                for (sample, root) in [(true, false), (false, true)] {
                    let found = prefix.double(rows.clone(), &Finish::Variance { sample, root });
                    assert_eq!(bits(found), bits(moments.double(sample, root)), "case {case}: {rows:?}");
                }
            }
        }
        assert!((2_000..3_000).contains(&short), "{short}");
    }

    #[test]
    fn what_lies_apart_or_is_not_finite_is_left_to_the_exact_sums() {
        let of = |values: Vec<f64>, squares| {
            Prefix::new(&Input { args: vec![Arc::new(Float64Array::from(values))], mask: None }, squares).is_some()
        };
        assert!(of(vec![1.0, 1e15, -3.5], true));
        assert!(of(vec![1.0, 1e20], false) && !of(vec![1.0, 1e25], true));
        for apart in [1e30, 1e300, f64::INFINITY, f64::NAN, 5e-324] {
            assert!(!of(vec![1.0, apart], false), "{apart}");
        }
        assert!(of(vec![], true) && of(vec![0.0, -0.0], true));
        assert!(!of(vec![1e-300], false) && !of(vec![1e300], false));
    }
}
