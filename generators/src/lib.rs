//! Synthetic card transactions and clicks with a hidden, learnable fraud pattern.
//!
//! A [`World`] is a small economy (customers, cards, merchants, habits) drawn from one seed. Its
//! [`events`](World::events) are a pure function of the configuration and the range of arrival times: the
//! same seed gives the same events, and adjacent ranges join without a seam, so live traffic goes on where
//! history ended. Events come in *arrival* order, most on time, some late and out of order.
//!
//! Every single row of a fraud looks exactly like some honest customer's row (see the module `fraud`); only
//! the company it keeps in time tells. So raw columns learn nothing and window features do.
//!
//! [`write_history`] puts a range into files; [`Encoder`] gives the Avro bytes for a log or Kafka and
//! [`Event::to_json`] the JSON for a push over HTTP. Both follow the contracts in `schemas/`.

mod arrivals;
mod config;
mod contract;
mod dice;
mod error;
mod fraud;
mod habits;
mod output;
mod record;
mod rhythm;
mod traffic;
mod world;

pub use arrivals::Events;
pub use config::Config;
pub use contract::{CLICKS_CONTRACT, Encoder, TRANSACTIONS_CONTRACT, clicks_schema, transactions_schema};
pub use error::Error;
pub use output::{
    Format, Progress, Summary, clicks_batch, labels_batch, merchants_batch, transactions_batch, write_history,
};
pub use record::{CLICKS, Click, Event, Record, TRANSACTIONS, Transaction};
pub use world::{Merchant, World};

/// What the generators' fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
