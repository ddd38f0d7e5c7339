CREATE FEATURE VIEW case_view AS
SELECT o.user_id, COUNT(*) OVER w AS n
FROM orders o
JOIN merchants m ON m.merchant_id = o.merchant_id AND m.risk > 0.5
WINDOW w AS (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
