//! The generators from outside: what a world promises, its files, and that its fraud can be learnt.

// Helpers of tests may unwrap too: a panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, helpers included")]

mod auc;
mod contracts;
mod events;
mod files;
mod fraud;

/// 2026-01-01T00:00:00Z, a Thursday, in microseconds.
const START: i64 = 1_767_225_600_000_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
