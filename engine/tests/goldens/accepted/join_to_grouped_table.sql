CREATE FEATURE VIEW case_view AS
SELECT o.user_id, MAX(c.n) OVER w AS largest
FROM orders o LEFT JOIN (SELECT merchant_id, COUNT(*) AS n FROM merchants GROUP BY merchant_id) c ON c.merchant_id = o.merchant_id
WINDOW w AS (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
