//! What keys a spine has, about.

/// A set of hashes that may take some for members that are not. Each is looked for in one word, and words are no more than
/// members need: most of the looking is waiting for memory.
#[derive(Debug)]
pub(super) struct Sieve(Vec<u64>);

impl Sieve {
    /// A power of two: 2 MiB.
    const WORDS: usize = 1 << 18;
    const FEWEST: usize = 1 << 10;
    /// So many bits there are for each that is set, at least.
    const SPARSE: usize = 8;

    pub fn new() -> Self {
        Self(vec![0; Self::WORDS])
    }

    pub fn insert(&mut self, hash: u64) {
        let word = self.word(hash);
        self.0[word] |= bits(hash);
    }

    pub fn may_hold(&self, hash: u64) -> bool {
        self.0[self.word(hash)] & bits(hash) == bits(hash)
    }

    /// Puts words together for as long as few bits are set.
    pub fn fold(&mut self) {
        let set = self.0.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        while self.0.len() > Self::FEWEST && set * Self::SPARSE * 2 <= self.0.len() * 64 {
            let upper = self.0.split_off(self.0.len() / 2);
            self.0.iter_mut().zip(upper).for_each(|(lower, upper)| *lower |= upper);
        }
    }

    fn word(&self, hash: u64) -> usize {
        hash as usize % self.0.len()
    }
}

fn bits(hash: u64) -> u64 {
    1 << (hash >> 58) | 1 << (hash >> 52 & 63)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    #[test]
    fn members_are_found_and_few_others() {
        let mut rng = StdRng::seed_from_u64(1);
        for members in [0, 1, 100, 10_000, 300_000] {
            let mut sieve = Sieve::new();
            let hashes: Vec<u64> = (0..members).map(|_| rng.random()).collect();
            hashes.iter().for_each(|hash| sieve.insert(*hash));
            sieve.fold();
            assert!(hashes.iter().all(|hash| sieve.may_hold(*hash)));
            let others = (0..100_000).filter(|_| sieve.may_hold(rng.random())).count();
            assert!(others < 6_000, "{others} of 100,000 others, with {members} members");
        }
    }
}
