//! What keys a spine has, about.

/// A set of hashes that may take a few for members that are not, in 2 MiB whatever their number.
#[derive(Debug)]
pub(super) struct Sieve(Vec<u64>);

impl Sieve {
    const BITS: usize = 1 << 24;

    pub fn new() -> Self {
        Self(vec![0; Self::BITS / 64])
    }

    pub fn insert(&mut self, hash: u64) {
        for bit in Self::bits(hash) {
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }

    pub fn may_hold(&self, hash: u64) -> bool {
        Self::bits(hash).into_iter().all(|bit| self.0[bit / 64] >> (bit % 64) & 1 == 1)
    }

    fn bits(hash: u64) -> [usize; 2] {
        [hash as usize % Self::BITS, (hash >> 40) as usize % Self::BITS]
    }
}
