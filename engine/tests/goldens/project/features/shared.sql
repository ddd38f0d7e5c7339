-- Orders of a shop.
CREATE SOURCE orders WITH (
  schema    = 'orders.v1',
  timestamp = 'event_time',
  event_id  = 'order_id'
);

CREATE SOURCE clicks WITH (schema = 'clicks.v1', timestamp = 'ts');

-- One row a merchant.
CREATE EXTERNAL TABLE merchants (merchant_id BIGINT NOT NULL, category VARCHAR, risk DOUBLE)
STORED AS CSV LOCATION 'data/merchants.csv';

CREATE EXTERNAL TABLE labels (user_id BIGINT, merchant_id BIGINT, amount DOUBLE, at TIMESTAMP, fraud BOOLEAN)
STORED AS CSV LOCATION 'data/labels.csv';

CREATE FEATURE VIEW spend AS
SELECT
  user_id,
  -- Orders of an hour
  COUNT(*)    OVER hour AS orders_1h,
  SUM(amount) OVER hour AS spend_1h
FROM orders
WINDOW hour AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW pairs AS
SELECT user_id, merchant_id, COUNT(*) OVER w AS visits
FROM orders
WINDOW w AS (PARTITION BY user_id, merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW);

CREATE FEATURE SERVICE score (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_1h, request.amount / NULLIF(s.spend_1h, 0) AS share
FROM request LEFT JOIN spend s ON s.user_id = request.user_id;
