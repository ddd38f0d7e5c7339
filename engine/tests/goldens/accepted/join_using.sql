CREATE FEATURE VIEW case_view AS
SELECT user_id, MAX(category) OVER w AS category
FROM orders LEFT JOIN merchants USING (merchant_id)
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
