CREATE FEATURE VIEW case_view AS
SELECT user_id, merchant_id AS shop, COUNT(*) OVER w AS visits
FROM orders
WINDOW w AS (PARTITION BY user_id, merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
