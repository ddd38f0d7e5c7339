//! A small project: one source, four views, services over them.

use std::path::Path;

pub const CONTRACT: &str = r#"{
  "type": "record", "name": "Transaction", "namespace": "test",
  "fields": [
    {"name": "transaction_id", "type": "string"},
    {"name": "user_id", "type": "long"},
    {"name": "amount", "type": "double"},
    {"name": "country", "type": ["null", "string"], "default": null},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}}
  ]
}"#;

pub const SQL: &str = r#"
CREATE SOURCE transactions WITH (
  description = 'Card transactions', owner = 'payments',
  schema = 'transactions.v1', timestamp = 'event_time', event_id = 'transaction_id', partitions = 2
);

CREATE SOURCE old_events WITH (connector = 'files', location = 'old/*.csv', timestamp = 'at');

CREATE EXTERNAL TABLE labels (user_id BIGINT, label_time TIMESTAMP, is_fraud BOOLEAN) STORED AS CSV LOCATION 'data/labels.csv';

CREATE FEATURE VIEW user_spend WITH (description = 'Spend per user', owner = 'fraud', lateness = '1 day') AS
SELECT
  user_id,
  -- Transactions in the last hour
  COUNT(*) OVER hour AS txn_count_1h,
  SUM(amount) OVER hour AS spend_1h,
  MAX(event_time) OVER hour AS last_at,
  LAST_VALUE(country) OVER hour AS last_country
FROM transactions
WINDOW hour AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW user_country AS
SELECT user_id, country, COUNT(*) OVER (PARTITION BY user_id, country ORDER BY event_time ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS recent
FROM transactions;

CREATE FEATURE VIEW user_inverse AS
SELECT user_id, 1000 / COUNT(*) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS inverse
FROM transactions;

CREATE FEATURE SERVICE fraud_v1 (user_id BIGINT, amount DOUBLE) WITH (description = 'Scores a payment') AS
SELECT
  -- What was asked for
  request.amount,
  s.txn_count_1h,
  s.spend_1h,
  request.amount / NULLIF(s.spend_1h, 0) AS share
FROM request LEFT JOIN user_spend s ON s.user_id = request.user_id;

CREATE FEATURE SERVICE transfer_v1 (sender BIGINT, receiver BIGINT) AS
SELECT a.txn_count_1h AS sent, b.txn_count_1h AS received
FROM request
LEFT JOIN user_spend a ON a.user_id = request.sender
LEFT JOIN user_spend b ON b.user_id = request.receiver;

CREATE FEATURE SERVICE parts_v1 (cents BIGINT, parts BIGINT) AS
SELECT request.cents / request.parts AS cents_per_part FROM request;

CREATE FEATURE SERVICE echo_v1 (
  a BIGINT, b DOUBLE, c DECIMAL(10, 2), d TIMESTAMP, e DATE, f VARCHAR, g BOOLEAN, h BYTEA, i BIGINT[], j SMALLINT
) AS
SELECT request.j, request.i, request.h, request.g, request.f, request.e, request.d, request.c, request.b, request.a FROM request;

CREATE TRAINING SET fraud_training WITH (service = 'fraud_v1', timestamp = 'label_time') AS
SELECT user_id, 1.0 AS amount, label_time, is_fraud FROM labels;
"#;

/// Another version of it, with one view more.
pub fn with_new_view() -> String {
    format!(
        "{SQL}\nCREATE FEATURE VIEW user_total AS SELECT user_id, SUM(amount) OVER (PARTITION BY user_id ORDER BY event_time \
         RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS total FROM transactions;"
    )
}

pub fn write(root: &Path, sql: &str) {
    for folder in ["schemas", "features", "old"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("schemas/transactions.v1.avsc"), CONTRACT).unwrap();
    std::fs::write(root.join("features/all.sql"), sql).unwrap();
    std::fs::write(root.join("old/events.csv"), "at,user_id\n2026-01-01T00:00:00Z,1\n").unwrap();
}
