//! The binary as a person or a script uses it.

mod bad_input;
mod check;
mod crash;
mod explain;
mod files;
mod support;
