CREATE FEATURE VIEW bad AS
SELECT o.user_id, MAX(m.risk) OVER (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders o LEFT JOIN (SELECT merchant_id, AVG(amount) AS risk FROM orders GROUP BY merchant_id) m ON m.merchant_id = o.merchant_id;
