//! Integration tests of the engine, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails, helpers included"
)]

mod goldens;
mod parity;
