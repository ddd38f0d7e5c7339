CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (user_id BIGINT, merchant_id BIGINT) AS
SELECT
  s.orders_1h,
  p.price,
  date_part('epoch', request.as_of) - date_part('epoch', p.since) AS price_age
FROM request
LEFT JOIN spend s ON s.user_id = request.user_id
ASOF JOIN prices AS p MATCH_CONDITION (request.as_of >= p.since) ON p.merchant_id = request.merchant_id;

CREATE TRAINING SET case_set WITH (service = 'case_service', timestamp = 'at') AS
SELECT user_id, merchant_id, at, fraud FROM labels;
