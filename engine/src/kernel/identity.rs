//! Event ids: one event, however often a producer sent it.

use std::collections::HashSet;

use ahash::RandomState;
use arrow::array::ArrayRef;
use sha2::{Digest, Sha256};

use super::fold::value::{Value, value_at};

/// (event time, event id) pairs.
pub(super) type Identities = HashSet<(i64, Value), RandomState>;

/// The identity of a row; `None` where the id is NULL (an event without an id is like no other) or there is no id.
pub(super) fn identity(times: &[i64], ids: Option<&ArrayRef>, row: usize) -> Option<(i64, Value)> {
    Some((*times.get(row)?, value_at(ids?, row)?))
}

/// The 64-bit hash that partial states keep of an identity: the first eight bytes, little-endian, of SHA-256 over
/// the time (eight bytes) and the id: its bytes, or its number in sixteen (a 256-bit decimal: in 32), little-endian.
/// It is stored, so it must never change.
pub(super) fn hash((time, id): &(i64, Value)) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(time.to_le_bytes());
    match id {
        Value::Int(value) => hasher.update(value.to_le_bytes()),
        Value::Wide(value) => hasher.update(value.to_le_bytes()),
        Value::Bytes(bytes) => hasher.update(bytes),
    }
    let digest = hasher.finalize();
    digest.iter().take(8).rev().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
