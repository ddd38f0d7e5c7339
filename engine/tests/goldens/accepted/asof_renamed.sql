CREATE EXTERNAL TABLE rates (merchant_id BIGINT, day DATE, "Rate" DOUBLE)
STORED AS CSV LOCATION 'data/rates.csv' OPTIONS (timestamp 'day');

CREATE VIEW priced AS
SELECT s.user_id, s.at, "Rate" AS rate
FROM (SELECT user_id, merchant_id, event_time AS at FROM orders WHERE amount > 0) s
ASOF JOIN rates MATCH_CONDITION (s.at >= day) ON s.merchant_id = rates.merchant_id;

CREATE FEATURE VIEW case_view AS
SELECT user_id, MAX(rate) OVER w AS highest
FROM priced
WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
