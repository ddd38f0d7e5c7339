//! Which partition an event goes to.

/// The partition of a key among `n`, the same on every machine and release.
pub fn partition_of(key: &str, n: i32) -> i32 {
    // FNV-1a, then a final mix because its low bits are weak.
    let mut hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash % u64::from(n.max(1).unsigned_abs())) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_keys_are_stable_and_spread() {
        // Kept for ever: a key that changed its partition would have two timelines with one order each.
        assert_eq!(["", "a", "user-1", "é"].map(|key| partition_of(key, 16)), [2, 13, 13, 13]);
        assert_eq!(partition_of("anything", 0), 0);
        let mut counts = [0; 8];
        for i in 0..8000 {
            counts[partition_of(&format!("user-{i}"), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
