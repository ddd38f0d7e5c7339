//! The binary as a person or a script uses it.

// Helpers of tests may unwrap too: a panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, helpers included")]

mod archive;
mod backfill;
mod bad_input;
mod check;
mod crash;
mod disk;
mod explain;
mod files;
mod handover;
mod history;
mod parity;
mod past;
mod production;
mod retention;
mod schemas;
mod stores;
mod support;
mod training_folder;
mod training_set;
