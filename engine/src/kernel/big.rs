//! Exact numbers as digits: what is left to do with a sum once nothing more is added to it.

use super::exact::{BIAS, ExactSum, LIMB_BITS};

/// An exact number: `±digits * 2^(32 * low - BIAS)`, the lowest digit first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Big {
    pub negative: bool,
    pub low: i32,
    pub digits: Vec<u32>,
}

impl Big {
    /// Without zero digits at either end; zero has no digit, and is positive.
    pub fn trimmed(mut self) -> Self {
        let top = self.digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        self.digits.truncate(top);
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        self.low += zeros as i32;
        if self.digits.is_empty() {
            self.low = 0;
            self.negative = false;
        }
        self
    }

    pub fn times(&self, factor: u64) -> Big {
        let factor = Big { negative: false, low: BIAS / LIMB_BITS, digits: vec![factor as u32, (factor >> 32) as u32] };
        self.product(&factor)
    }

    pub fn squared(&self) -> Big {
        self.product(self)
    }

    fn product(&self, other: &Big) -> Big {
        let mut digits = vec![0u32; self.digits.len() + other.digits.len()];
        multiply(&self.digits, &other.digits, &mut digits);
        // 2^-BIAS once, not twice.
        let low = self.low + other.low - BIAS / LIMB_BITS;
        Big { negative: self.negative != other.negative, low, digits }.trimmed()
    }

    /// `self - other`, of two numbers that aren't negative.
    pub fn minus(&self, other: &Big) -> Big {
        let low = match (self.digits.is_empty(), other.digits.is_empty()) {
            (_, true) => return self.clone(),
            (true, false) => other.low,
            (false, false) => self.low.min(other.low),
        };
        let high = (self.low + self.digits.len() as i32).max(other.low + other.digits.len() as i32);
        let mut limbs = vec![0i64; (high - low) as usize];
        for (big, sign) in [(self, 1), (other, -1)] {
            let from = (big.low - low).max(0) as usize;
            for (limb, digit) in limbs[from..].iter_mut().zip(&big.digits) {
                *limb += sign * i64::from(*digit);
            }
        }
        ExactSum::from_limbs(low, limbs).exact()
    }

    /// The nearest double, ties to even; too large is an infinity.
    pub fn to_f64(&self) -> f64 {
        nearest(self.negative, self.low, &self.digits).unwrap_or_else(|| self.rounded())
    }

    /// As [`Big::to_f64`], whatever the size.
    fn rounded(&self) -> f64 {
        let Some(top) = self.digits.last() else {
            return 0.0;
        };
        let bits = self.digits.len() as i32 * LIMB_BITS - top.leading_zeros() as i32;
        let scale = self.low * LIMB_BITS - BIAS;
        // The place of the result's last bit: 53 bits below the top, or the smallest subnormal's.
        let last = (bits - 53 + scale).max(-1074);
        let dropped = last - scale;
        let mut mantissa = self.bits_from(dropped, 54);
        if dropped > 0 {
            let half = self.bits_from(dropped - 1, 1) == 1;
            let sticky = self.any_below(dropped - 1);
            if half && (sticky || mantissa & 1 == 1) {
                mantissa += 1;
            }
        }
        let magnitude = if mantissa < 1 << 52 {
            f64::from_bits(mantissa)
        } else {
            let exponent = last + 1075 + i32::from(mantissa == 1 << 53);
            if exponent >= 0x7ff {
                f64::INFINITY
            } else {
                f64::from_bits(((exponent as u64) << 52) | (mantissa & ((1 << 52) - 1)))
            }
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// The number as a double in `[2^-32, 1)` and a power of two: for what a double alone can't reach.
    pub fn scaled(&self) -> (f64, i32) {
        let shift = self.low + self.digits.len() as i32 - BIAS / LIMB_BITS;
        let near_one = Big { low: self.low - shift, ..self.clone() };
        (near_one.to_f64(), shift * LIMB_BITS)
    }

    /// Up to 64 bits from bit `from` up; bits below bit 0 are zero.
    fn bits_from(&self, from: i32, count: i32) -> u64 {
        let mut bits = 0u64;
        for offset in 0..count {
            let position = from + offset;
            if position >= 0 && self.bit(position) {
                bits |= 1 << offset;
            }
        }
        bits
    }

    fn bit(&self, position: i32) -> bool {
        let digit = self.digits.get((position / LIMB_BITS) as usize);
        digit.is_some_and(|digit| digit >> (position % LIMB_BITS) & 1 == 1)
    }

    fn any_below(&self, position: i32) -> bool {
        let (whole, rest) = ((position / LIMB_BITS) as usize, position % LIMB_BITS);
        self.digits.iter().take(whole).any(|digit| *digit != 0)
            || self.digits.get(whole).is_some_and(|digit| digit & ((1u32 << rest) - 1) != 0)
    }
}

/// The nearest double, ties to even, of `±digits * 2^(32 * low - BIAS)`; `None` where it isn't a normal number.
pub(super) fn nearest(negative: bool, low: i32, digits: &[u32]) -> Option<f64> {
    let top = digits.iter().rposition(|digit| *digit != 0)?;
    // The three digits at the top hold more than 64 bits; of those below it matters only whether there are any.
    let digit = |below: usize| top.checked_sub(below).and_then(|place| digits.get(place)).map_or(0, |d| u128::from(*d));
    let head = digit(0) << 64 | digit(1) << 32 | digit(2);
    let rest = digits.iter().take(top.saturating_sub(2)).any(|digit| *digit != 0);
    let dropped = 128 - head.leading_zeros() - 53;
    let (mut mantissa, below) = ((head >> dropped) as u64, head & ((1 << dropped) - 1));
    let half = 1 << (dropped - 1);
    if below > half || (below == half && (rest || mantissa & 1 == 1)) {
        mantissa += 1;
    }
    let exponent = (low + top as i32 - 2) * LIMB_BITS - BIAS + dropped as i32 + 1075 + i32::from(mantissa == 1 << 53);
    if !(1..0x7ff).contains(&exponent) {
        return None;
    }
    let sign = u64::from(negative) << 63;
    Some(f64::from_bits(sign | (exponent as u64) << 52 | (mantissa & ((1 << 52) - 1))))
}

/// Puts the product of two numbers' digits where as many zeros are as they have digits together.
fn multiply(left: &[u32], right: &[u32], product: &mut [u32]) {
    for (offset, left) in left.iter().enumerate() {
        let mut carry = 0u64;
        for (digit, right) in product[offset..].iter_mut().zip(right) {
            let total = u64::from(*left) * u64::from(*right) + u64::from(*digit) + carry;
            *digit = total as u32;
            carry = total >> 32;
        }
        product[offset + right.len()] = carry as u32;
    }
}

/// `count · squares − sum²`, of values' squares and of values, so that it isn't negative: as [`Big::scaled`].
pub(super) fn spread(count: u64, squares: &ExactSum, sum: &ExactSum) -> (f64, i32) {
    short_spread(count, squares, sum)
        .unwrap_or_else(|| squares.exact().times(count).minus(&sum.exact().squared()).scaled())
}

/// Without an allocation, where both are short.
fn short_spread(count: u64, squares: &ExactSum, sum: &ExactSum) -> Option<(f64, i32)> {
    const MOST: usize = 32;
    let (squares, sum) = (squares.digits()?, sum.digits()?);
    let trimmed = |digits: &'_ [u32]| digits.iter().rposition(|digit| *digit != 0).map_or(0, |top| top + 1);
    let (of_squares, of_sum) = (&squares.digits[..trimmed(&squares.digits)], &sum.digits[..trimmed(&sum.digits)]);
    // 2^-BIAS once, not twice.
    let lows = [squares.low, 2 * sum.low - BIAS / LIMB_BITS];
    let low = lows[0].min(lows[1]);
    let mut limbs = [0i64; MOST];
    let factor = [count as u32, (count >> 32) as u32];
    for ((left, right), (from, sign)) in
        [(of_squares, &factor[..]), (of_sum, of_sum)].into_iter().zip(lows.into_iter().zip([1, -1]))
    {
        let mut product = [0u32; MOST];
        let product = product.get_mut(..left.len() + right.len())?;
        multiply(left, right, product);
        let from = usize::try_from(from - low).ok()?;
        let limbs = limbs.get_mut(from..from + product.len())?;
        limbs.iter_mut().zip(product).for_each(|(limb, digit)| *limb += sign * i64::from(*digit));
    }
    let (mut digits, mut carry) = ([0u32; MOST], 0);
    for (digit, limb) in digits.iter_mut().zip(limbs) {
        carry += limb;
        *digit = carry as u32;
        carry >>= LIMB_BITS;
    }
    let Some(top) = digits.iter().rposition(|digit| *digit != 0) else { return Some((0.0, 0)) };
    let shift = low + top as i32 + 1 - BIAS / LIMB_BITS;
    Some((nearest(false, low - shift, &digits[..=top])?, shift * LIMB_BITS))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_short_spread_is_the_exact_one() {
        let mut random = ChaCha8Rng::seed_from_u64(6);
        let mut short = 0;
        for case in 0..20_000 {
            let (mut squares, mut sum) = (ExactSum::default(), ExactSum::default());
            let count = random.random_range(1..30u64);
            let (middle, width) = (random.random_range(-900..900), [1, 20, 200][case % 3]);
            let same = random.random_range(0..10) == 0;
            let mut value = 0.0;
            for place in 0..count {
                if place == 0 || !same {
                    let exponent = 1023 + middle + random.random_range(0..width);
                    value = f64::from_bits(random.next_u64() & (1 << 63 | ((1 << 52) - 1)) | (exponent as u64) << 52);
                }
                squares.add_square(value);
                sum.add(value);
            }
            let exact = squares.exact().times(count).minus(&sum.exact().squared()).scaled();
            let Some((found, power)) = short_spread(count, &squares, &sum) else { continue };
            short += 1;
            if exact.0 == 0.0 {
                assert_eq!(found, 0.0, "case {case}");
            } else {
                assert_eq!((found.to_bits(), power), (exact.0.to_bits(), exact.1), "case {case}");
            }
        }
        assert!((10_000..20_000).contains(&short), "{short}");
    }

    #[test]
    fn big_arithmetic() {
        let mut sum = ExactSum::default();
        sum.add(-3.5);
        assert_eq!(sum.exact().times(1 << 40).to_f64(), -3.5 * (1u64 << 40) as f64);
        let mut other = ExactSum::default();
        other.add(10.0);
        assert_eq!(other.exact().minus(&sum.exact().squared()).to_f64(), 10.0 - 12.25);
    }
}
