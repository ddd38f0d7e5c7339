//! Exact sums of doubles: order, grouping and merging never change a bit of the result.
//!
//! [`ExactSum`] holds the sum of all finite values (or of their squares) as one wide integer, in the manner of
//! Neal's small superaccumulator: limbs of 32 bits with room for carries, so that adding touches three to
//! five limbs and never rounds. Only the limbs between the smallest and the largest exponent seen are kept.
//! [`ExactSum::value`] rounds once, to the nearest double, ties to even. NaN and infinities are counted.

use super::big::{Big, nearest};

/// The weight of bit 0 of limb 0 is 2^-BIAS: below the square of the smallest double, and a whole number of limbs.
pub(super) const BIAS: i32 = 68 * 32;
pub(super) const LIMB_BITS: i32 = 32;
const DIGIT: i64 = 0xffff_ffff;
/// Additions before the carries must be settled: each adds less than 2^33 to a limb, and a limb holds 2^63.
const SETTLE_EVERY: u32 = 1 << 28;
/// Limbs of a sum that is read without an allocation, as most are.
const SHORT: usize = 12;
/// Limbs that a sum can reach: squares end below 2^2048, and 2^64 of them below 2^2112.
pub(crate) const MAX_LIMBS: i32 = (BIAS + 2112 + 64) / LIMB_BITS;

/// The exact sum of doubles.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    /// Index of `limbs[0]`.
    low: i32,
    limbs: Vec<i64>,
    unsettled: u32,
    pub(crate) nan: u64,
    pub(crate) positive_infinities: u64,
    pub(crate) negative_infinities: u64,
}

/// The digits of a short sum: so many, the lowest first, of which the upper ones may be zero.
pub(super) struct Digits {
    pub negative: bool,
    pub low: i32,
    pub digits: [u32; SHORT + 2],
    pub count: usize,
}

impl ExactSum {
    #[inline]
    pub fn add(&mut self, value: f64) {
        match parts(value) {
            Some((negative, mantissa, exponent)) => self.add_scaled(negative, u128::from(mantissa), exponent),
            None => *self.special(value) += 1,
        }
    }

    /// Takes back a value that was added: the sum is exactly what it was without it.
    #[inline]
    pub fn remove(&mut self, value: f64) {
        match parts(value) {
            Some((negative, mantissa, exponent)) => self.add_scaled(!negative, u128::from(mantissa), exponent),
            None => *self.special(value) -= 1,
        }
    }

    /// Adds `value * value`, without rounding it; a NaN or an infinity counts as what it is.
    #[inline]
    pub fn add_square(&mut self, value: f64) {
        match parts(value) {
            Some((_, mantissa, exponent)) => self.add_scaled(false, square(mantissa), 2 * exponent),
            None => *self.special(value) += 1,
        }
    }

    /// Takes back a square that was added.
    #[inline]
    pub fn remove_square(&mut self, value: f64) {
        match parts(value) {
            Some((_, mantissa, exponent)) => self.add_scaled(true, square(mantissa), 2 * exponent),
            None => *self.special(value) -= 1,
        }
    }

    pub fn merge(&mut self, other: &ExactSum) {
        self.nan += other.nan;
        self.positive_infinities += other.positive_infinities;
        self.negative_infinities += other.negative_infinities;
        if other.limbs.is_empty() {
            return;
        }
        self.reserve(other.low, other.limbs.len());
        let from = (other.low - self.low) as usize;
        for (limb, added) in self.limbs[from..].iter_mut().zip(&other.limbs) {
            *limb += added;
        }
        self.unsettled += other.unsettled + 1;
        if self.unsettled >= SETTLE_EVERY {
            self.settle();
        }
    }

    /// The sum of nothing again, with the limbs that are allocated.
    pub fn clear(&mut self) {
        self.limbs.clear();
        (self.unsettled, self.nan, self.positive_infinities, self.negative_infinities) = (0, 0, 0, 0);
    }

    pub fn is_finite(&self) -> bool {
        self.nan == 0 && self.positive_infinities == 0 && self.negative_infinities == 0
    }

    /// The sum, rounded once. Zero is `+0.0`; infinities of both signs give NaN.
    pub fn value(&self) -> f64 {
        if self.nan > 0 || (self.positive_infinities > 0 && self.negative_infinities > 0) {
            f64::NAN
        } else if self.positive_infinities > 0 {
            f64::INFINITY
        } else if self.negative_infinities > 0 {
            f64::NEG_INFINITY
        } else {
            self.near().unwrap_or_else(|| self.exact().to_f64())
        }
    }

    /// The value without an allocation, where the sum is short and a normal number.
    fn near(&self) -> Option<f64> {
        let Digits { negative, low, digits, count } = self.digits()?;
        nearest(negative, low, &digits[..count])
    }

    /// The digits of the finite values' sum, where it is short.
    pub(super) fn digits(&self) -> Option<Digits> {
        let mut found = Digits { negative: false, low: self.low, digits: [0; SHORT + 2], count: self.limbs.len() + 2 };
        let digits = found.digits.get_mut(..found.count)?;
        let mut settle = |sign: i64| {
            let mut carry = 0;
            for (place, digit) in digits.iter_mut().enumerate() {
                let total = self.limbs.get(place).map_or(0, |limb| sign * limb) + carry;
                carry = total >> LIMB_BITS;
                *digit = total as u32;
            }
            carry
        };
        found.negative = settle(1) < 0;
        if found.negative {
            settle(-1);
        }
        Some(found)
    }

    /// The sum of the finite values, exactly and in canonical form.
    pub(crate) fn exact(&self) -> Big {
        let mut settled = self.clone();
        settled.settle();
        let negative = settled.limbs.last().is_some_and(|top| *top < 0);
        if negative {
            settled.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            settled.settle();
        }
        let digits = settled.limbs.iter().map(|limb| *limb as u32).collect();
        Big { negative, low: settled.low, digits }.trimmed()
    }

    /// The inverse of [`ExactSum::exact`]. The caller has checked that `big` is within [`MAX_LIMBS`].
    pub(crate) fn from_exact(big: &Big) -> Self {
        let sign = if big.negative { -1 } else { 1 };
        let limbs = big.digits.iter().map(|digit| sign * i64::from(*digit)).collect();
        ExactSum::from_limbs(big.low, limbs)
    }

    pub(super) fn from_limbs(low: i32, limbs: Vec<i64>) -> Self {
        ExactSum { low, limbs, unsettled: 1, ..Self::default() }
    }

    /// The counter of a value that is not finite.
    #[cold]
    fn special(&mut self, value: f64) -> &mut u64 {
        if value.is_nan() {
            &mut self.nan
        } else if value > 0.0 {
            &mut self.positive_infinities
        } else {
            &mut self.negative_infinities
        }
    }

    /// Adds `mantissa * 2^exponent`.
    #[inline]
    fn add_scaled(&mut self, negative: bool, mantissa: u128, exponent: i32) {
        if mantissa == 0 {
            return;
        }
        let position = exponent + BIAS;
        let limb = position / LIMB_BITS;
        let shift = position % LIMB_BITS;
        let sign = if negative { -1 } else { 1 };
        let low = u128::from(mantissa as u64) << shift;
        let high = (mantissa >> 64) << shift;
        let count = if high == 0 { 3 } else { 5 };
        self.reserve(limb, count);
        let from = (limb - self.low) as usize;
        let limbs = &mut self.limbs[from..from + count];
        for (index, limb) in limbs.iter_mut().take(3).enumerate() {
            *limb += sign * ((low >> (32 * index)) as i64 & DIGIT);
        }
        for (index, limb) in limbs.iter_mut().skip(2).enumerate() {
            *limb += sign * ((high >> (32 * index)) as i64 & DIGIT);
        }
        self.unsettled += 1;
        if self.unsettled >= SETTLE_EVERY {
            self.settle();
        }
    }

    #[inline]
    fn reserve(&mut self, low: i32, count: usize) {
        if self.limbs.is_empty() {
            self.low = low;
        } else if low < self.low {
            let missing = (self.low - low) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.low = low;
        }
        let needed = (low - self.low) as usize + count;
        if self.limbs.len() < needed {
            self.limbs.resize(needed, 0);
        }
    }

    /// Settles the carries: every limb is a digit, and the last one carries the sign.
    fn settle(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs {
            let total = *limb + carry;
            carry = total >> LIMB_BITS;
            *limb = total & DIGIT;
        }
        // A carry of 0 or -1 is all sign; a negative one must stay visible in a last limb of its own.
        if carry != 0 {
            self.limbs.push(carry);
        }
        self.unsettled = 1;
    }
}

#[inline]
fn square(mantissa: u64) -> u128 {
    u128::from(mantissa) * u128::from(mantissa)
}

/// Sign, mantissa and exponent of a finite double.
#[inline]
fn parts(value: f64) -> Option<(bool, u64, i32)> {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let negative = bits >> 63 == 1;
    match exponent {
        0x7ff => None,
        0 => Some((negative, fraction, -1074)),
        _ => Some((negative, fraction | (1 << 52), exponent - 1075)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value()
    }

    #[test]
    fn cancels_exactly() {
        assert_eq!(sum(&[1e308, 1.0, -1e308]), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308]), 1e308);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[-f64::MAX, -f64::MAX]), f64::NEG_INFINITY);
        assert_eq!(sum(&[5e-324, 5e-324]), 1e-323);
        assert_eq!(sum(&[-0.0]).to_bits(), 0.0f64.to_bits());
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[-1e16, 1.0, 1e16]), 1.0);
        assert_eq!(sum(&[1.0, -1e-320]), 1.0);
    }

    #[test]
    fn counts_what_is_not_finite() {
        assert!(sum(&[1.0, f64::NAN]).is_nan());
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum(&[f64::INFINITY, -5.0]), f64::INFINITY);
        assert_eq!(sum(&[f64::NEG_INFINITY, 5.0]), f64::NEG_INFINITY);
    }

    #[test]
    fn rounds_ties_to_even() {
        let ulp = f64::EPSILON;
        assert_eq!(sum(&[1.0, ulp / 2.0]), 1.0);
        assert_eq!(sum(&[1.0 + ulp, ulp / 2.0]), 1.0 + 2.0 * ulp);
        assert_eq!(sum(&[1.0, ulp / 2.0, 5e-324]), 1.0 + ulp);
        assert_eq!(sum(&[2.0 - ulp, ulp / 2.0]), 2.0);
        assert_eq!(sum(&[f64::MIN_POSITIVE, -5e-324]), f64::MIN_POSITIVE - 5e-324);
    }

    /// Any double, all exponents alike.
    fn any_double(random: &mut ChaCha8Rng) -> f64 {
        loop {
            let value = f64::from_bits(random.next_u64());
            if value.is_finite() {
                return value;
            }
        }
    }

    #[test]
    fn one_value_and_pairs_round_as_the_machine_does() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for case in 0..20_000 {
            let a = any_double(&mut random);
            let near = a * random.random_range(-4.0..4.0);
            let b = if case % 2 == 0 || !near.is_finite() { any_double(&mut random) } else { near };
            assert_eq!(sum(&[a]), a, "case {case}: {a:e}");
            assert_eq!(sum(&[a, b]), a + b, "case {case}: {a:e} + {b:e}");
        }
    }

    #[test]
    fn equals_scaled_integers_in_any_order_and_grouping() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for case in 0..300 {
            // Multiples of 2^-40 below 2^60: their sum fits an i128 scaled by 2^40.
            let scaled: Vec<i64> = (0..200).map(|_| random.random::<i64>() >> random.random_range(11..63)).collect();
            let mut values: Vec<f64> = scaled.iter().map(|value| *value as f64 * 2f64.powi(-40)).collect();
            let exact: i128 = scaled.iter().map(|value| i128::from(*value as f64 as i64)).sum();
            // Integer to double rounds to nearest, ties to even; scaling by a power of two is exact.
            let expected = exact as f64 * 2f64.powi(-40);
            assert_eq!(sum(&values), expected, "case {case}");
            values.shuffle(&mut random);
            let (left, right) = values.split_at(random.random_range(0..values.len()));
            let mut merged = ExactSum::default();
            for half in [left, right] {
                let mut part = ExactSum::default();
                half.iter().for_each(|value| part.add(*value));
                let part = ExactSum::from_exact(&part.exact());
                merged.merge(&part);
            }
            assert_eq!(merged.value(), expected, "case {case}, merged");
        }
    }

    #[test]
    fn what_is_removed_leaves_no_trace() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        for case in 0..500 {
            let draw = |random: &mut ChaCha8Rng| match random.random_range(0..20) {
                0 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][random.random_range(0..3)],
                _ => any_double(random),
            };
            let values: Vec<f64> = (0..random.random_range(1..40)).map(|_| draw(&mut random)).collect();
            let (gone, left) = values.split_at(random.random_range(0..=values.len()));
            let (mut slid, mut fresh) = ([ExactSum::default(), ExactSum::default()], ExactSum::default());
            let mut squares = ExactSum::default();
            values.iter().for_each(|value| slid[0].add(*value));
            values.iter().for_each(|value| slid[1].add_square(*value));
            gone.iter().for_each(|value| slid[0].remove(*value));
            gone.iter().for_each(|value| slid[1].remove_square(*value));
            left.iter().for_each(|value| fresh.add(*value));
            left.iter().for_each(|value| squares.add_square(*value));
            assert_eq!(slid[0].value().to_bits(), fresh.value().to_bits(), "case {case}");
            assert_eq!(slid[1].value().to_bits(), squares.value().to_bits(), "case {case}");
            assert_eq!(slid[0].exact(), fresh.exact(), "case {case}");
        }
    }

    #[test]
    fn squares_are_exact() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for case in 0..5_000 {
            let value = any_double(&mut random);
            let mut sum = ExactSum::default();
            sum.add_square(value);
            assert_eq!(sum.value(), value * value, "case {case}: {value:e}");
            // x² − x² is nothing at all, also where a double would underflow.
            let exact = sum.exact();
            assert!(exact.minus(&exact).digits.is_empty());
            let mut single = ExactSum::default();
            single.add(value);
            assert_eq!(single.exact().squared(), exact, "case {case}: {value:e}");
        }
    }
}
