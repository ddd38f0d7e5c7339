-- What investigators found later: one row for each transaction.
CREATE EXTERNAL TABLE labels (
  transaction_id VARCHAR NOT NULL,
  user_id        BIGINT NOT NULL,
  card_id        BIGINT NOT NULL,
  merchant_id    BIGINT NOT NULL,
  amount         DOUBLE NOT NULL,
  -- When the transaction was made
  event_time     TIMESTAMP(6) WITH TIME ZONE NOT NULL,
  is_fraud       BOOLEAN NOT NULL
)
STORED AS PARQUET LOCATION 'data/labels.parquet';
