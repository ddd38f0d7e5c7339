CREATE FEATURE VIEW case_view AS
SELECT o.user_id, AVG(m.risk) OVER w AS risk, COUNT(*) FILTER (WHERE m.category = 'travel') OVER w AS trips
FROM orders o
LEFT JOIN merchants m ON m.merchant_id = o.merchant_id
WINDOW w AS (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
