CREATE FEATURE VIEW bad AS
SELECT o.user_id, MAX(m.risk) OVER (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders o RIGHT JOIN merchants m ON m.merchant_id = o.merchant_id;
