//! Tests of the kernel as a whole: random views over random events.

mod encoding;
mod folds;
mod online;
mod random;
mod units;
mod values;
