//! Tests of the kernel as a whole: random views over random events.

mod encoding;
mod folds;
mod online;
mod random;
mod units;
mod values;
mod walk;

/// How many random cases a test runs; more of them by `TIDEMARK_KERNEL_CASES`.
fn cases(usually: u64) -> u64 {
    std::env::var("TIDEMARK_KERNEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usually)
}
