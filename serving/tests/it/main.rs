//! The REST server over real sockets, a real platform and a real project folder.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, helpers included")]

mod catalog;
mod errors;
mod events;
mod gate;
mod project;
mod readiness;
mod reads;
mod server;
mod shutdown;
