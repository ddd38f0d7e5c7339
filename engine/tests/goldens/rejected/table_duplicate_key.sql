CREATE EXTERNAL TABLE visits (merchant_id BIGINT, n BIGINT) STORED AS CSV LOCATION 'data/twice.csv';
CREATE FEATURE VIEW bad AS
SELECT o.user_id, SUM(v.n) OVER (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders o LEFT JOIN visits v ON v.merchant_id = o.merchant_id;
