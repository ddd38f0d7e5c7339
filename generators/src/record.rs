//! The events, field by field as their contracts say.

use chrono::{DateTime, SecondsFormat};
use serde::{Serialize, Serializer};

use crate::Result;

/// Name of the source that transactions belong to.
pub const TRANSACTIONS: &str = "transactions";
/// Name of the source that clicks belong to.
pub const CLICKS: &str = "clicks";

/// A record on its way: what happened, and when it reaches the platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it arrives, in microseconds UTC: at or after its event time.
    pub arrival: i64,
    /// Whether the same record arrived before.
    pub duplicate: bool,
    pub record: Record,
    /// Breaks ties of arrival the same way whatever the range: the block it was drawn in, and its place there.
    pub(crate) order: (i64, usize),
}

/// What happened. Serialises as the contract's record: `event_time` is RFC 3339 text in JSON, a long in Avro.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Record {
    Transaction(Transaction),
    Click(Click),
}

/// A card transaction, as `schemas/transactions.v1.avsc` describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transaction {
    pub transaction_id: String,
    pub user_id: i64,
    pub card_id: i64,
    pub merchant_id: i64,
    pub amount: f64,
    pub currency: &'static str,
    pub country: &'static str,
    pub channel: &'static str,
    pub status: &'static str,
    pub device_id: Option<String>,
    pub ip_country: Option<&'static str>,
    #[serde(serialize_with = "instant")]
    pub event_time: i64,
    /// The label: known to the generator, never part of the record.
    #[serde(skip)]
    pub is_fraud: bool,
}

/// A page view, as `schemas/clicks.v1.avsc` describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Click {
    pub click_id: String,
    pub user_id: i64,
    pub session_id: String,
    pub page: &'static str,
    pub referrer: Option<&'static str>,
    pub device_id: String,
    pub dwell_ms: Option<i32>,
    #[serde(serialize_with = "instant")]
    pub event_time: i64,
}

impl Event {
    /// What its topic is keyed by: the card of a transaction, the customer of a click.
    pub fn key(&self) -> String {
        match &self.record {
            Record::Transaction(transaction) => transaction.card_id.to_string(),
            Record::Click(click) => click.user_id.to_string(),
        }
    }

    /// The source that the record belongs to: [`TRANSACTIONS`] or [`CLICKS`].
    pub fn source(&self) -> &'static str {
        match self.record {
            Record::Transaction(_) => TRANSACTIONS,
            Record::Click(_) => CLICKS,
        }
    }

    /// When it happened, in microseconds UTC.
    pub fn event_time(&self) -> i64 {
        match &self.record {
            Record::Transaction(transaction) => transaction.event_time,
            Record::Click(click) => click.event_time,
        }
    }

    /// The record as a JSON object, ready to be pushed over HTTP.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(&self.record)?)
    }
}

/// `2026-01-31T23:59:59.123456Z`, or the number itself beyond the calendar.
pub(crate) fn rfc3339(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |instant| instant.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn instant<S: Serializer>(micros: &i64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&rfc3339(*micros))
    } else {
        serializer.serialize_i64(*micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_has_the_contracts_fields_and_readable_times() {
        let click = Click {
            click_id: "c-1".into(),
            user_id: 7,
            session_id: "s-1".into(),
            page: "home",
            referrer: None,
            device_id: "d-1".into(),
            dwell_ms: Some(1500),
            event_time: -1,
        };
        let event = Event { arrival: 0, duplicate: false, record: Record::Click(click), order: (0, 0) };
        let expected = json!({
            "click_id": "c-1", "user_id": 7, "session_id": "s-1", "page": "home", "referrer": null,
            "device_id": "d-1", "dwell_ms": 1500, "event_time": "1969-12-31T23:59:59.999999Z",
        });
        assert_eq!(event.to_json().unwrap(), expected);
        assert_eq!((event.source(), event.event_time()), (CLICKS, -1));
    }
}
