//! The REST server over real sockets, a real platform and a real project folder.

mod catalog;
mod errors;
mod events;
mod gate;
mod project;
mod readiness;
mod reads;
mod server;
mod shutdown;
