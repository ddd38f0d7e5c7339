CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE VIEW case_view AS
SELECT o.user_id, SUM(o.amount * p.price) OVER w AS spent
FROM orders o
ASOF JOIN prices p MATCH_CONDITION (o.event_time >= p.since) ON p.merchant_id > o.merchant_id
WINDOW w AS (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
