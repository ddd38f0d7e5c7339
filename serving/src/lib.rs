//! The REST server: feature reads, pushed events and the catalogue over one embedded platform.
//!
//! | route | what |
//! | --- | --- |
//! | `POST /v1/services/{service}` | a feature service's values for request rows ([`services`]) |
//! | `GET /v1/views/{view}?key=…` | a feature view's values for one key ([`views`]) |
//! | `POST /v1/views/{view}` | the same for many keys |
//! | `POST /v1/sources/{source}/events` | events in, durable before the answer ([`events`]) |
//! | `GET /v1/catalog`, `/v1/catalog/{kind}`, `/v1/catalog/{kind}/{name}` | definitions ([`catalog`]) |
//! | `GET /v1/store` | what each view's state takes ([`store`]) |
//! | `GET /health`, `/ready` | whether the process lives, and whether its answers can be trusted ([`health`]) |
//! | `GET /metrics` | Prometheus text: the engine's metrics and the server's ([`metrics`]) |
//!
//! # Guarantees
//!
//! * What goes in is typed strictly: nothing is coerced, cut or ignored ([`json_in`]). What comes out keeps its value
//!   ([`json_out`]).
//! * Every error is `application/problem+json` ([`problem`]); one of the request names its field, one of ours is logged
//!   and says no more than that.
//! * A request has limits: bytes, rows, time. A handler that panics answers 500 and harms nobody else.
//! * A view is read only when it has all of its history: until then the answer is 503, never a wrong value.

mod app;
mod body;
pub mod catalog;
pub mod events;
pub mod health;
mod instant;
pub mod json_in;
pub mod json_out;
pub mod metrics;
pub mod problem;
mod server;
pub mod services;
pub mod store;
mod types;
pub mod views;

pub use app::{Config, router};
pub use server::serve;
