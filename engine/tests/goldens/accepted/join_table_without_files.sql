CREATE EXTERNAL TABLE later (merchant_id BIGINT, risk DOUBLE) STORED AS PARQUET LOCATION 'data/later.parquet';
CREATE FEATURE VIEW case_view AS
SELECT o.user_id, MAX(l.risk) OVER w AS risk
FROM orders o LEFT JOIN later l ON l.merchant_id = o.merchant_id
WINDOW w AS (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
