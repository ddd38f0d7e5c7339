CREATE FEATURE VIEW bad AS
SELECT o.user_id, COUNT(*) OVER (PARTITION BY o.user_id ORDER BY o.event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders o JOIN clicks c ON c.user_id = o.user_id;
