CREATE FEATURE VIEW bad AS
SELECT user_id, COUNT(merchant_id) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders o LEFT JOIN merchants m ON m.merchant_id = o.merchant_id;
