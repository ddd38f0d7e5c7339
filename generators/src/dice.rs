//! Seeded draws. One die per (purpose, block of time), so that any block can be drawn without those before it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson, StandardNormal, Zipf};

/// What a die is for: each purpose draws from a stream of its own, so that one's rate never moves another's events.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Spending = 0,
    Fraud = 1,
    Clicks = 2,
    World = 3,
}

pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, purpose: Purpose, block: i64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Streams of one key never overlap.
        rng.set_stream((block as u64).wrapping_mul(4).wrapping_add(purpose as u64));
        Self(rng)
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// Uniform in from..to.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        from + (self.unit() * (to - from) as f64) as i64
    }

    /// Between `from` and `to`, each order of magnitude as likely as the next.
    pub fn log_between(&mut self, from: i64, to: i64) -> i64 {
        let (low, high) = (from as f64, to as f64);
        ((low * (high / low).powf(self.unit())) as i64).clamp(from, to)
    }

    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// A rank from 0 on, the most popular first.
    pub fn rank(&mut self, popularity: &Zipf<f64>) -> usize {
        popularity.sample(&mut self.0) as usize - 1
    }

    /// A number of arrivals; none for a mean that is not positive.
    pub fn poisson(&mut self, mean: f64) -> usize {
        Poisson::new(mean).map_or(0, |distribution| distribution.sample(&mut self.0) as usize)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_die_is_the_same_for_the_same_block_and_another_for_any_other() {
        let draw = |seed, purpose, block| Dice::new(seed, purpose, block).bits();
        assert_eq!(draw(1, Purpose::Fraud, -5), draw(1, Purpose::Fraud, -5));
        assert_ne!(draw(1, Purpose::Fraud, 5), draw(2, Purpose::Fraud, 5));
        assert_ne!(draw(1, Purpose::Fraud, 5), draw(1, Purpose::Fraud, 6));
        assert_ne!(draw(1, Purpose::Fraud, 5), draw(1, Purpose::Clicks, 5));
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut dice = Dice::new(7, Purpose::World, 0);
        let popularity = Zipf::new(10.0, 0.9).unwrap();
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&dice.unit()));
            assert!(dice.below(3) < 3);
            assert!((-5..9).contains(&dice.between(-5, 9)));
            assert!((2..=7_000).contains(&dice.log_between(2, 7_000)));
            assert!(dice.rank(&popularity) < 10);
        }
        assert_eq!(dice.poisson(0.0), 0);
        let mean = (0..10_000).map(|_| dice.poisson(3.0)).sum::<usize>() as f64 / 10_000.0;
        assert!((2.9..3.1).contains(&mean), "{mean}");
    }
}
