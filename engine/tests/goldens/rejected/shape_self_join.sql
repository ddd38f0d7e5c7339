CREATE FEATURE VIEW bad AS
SELECT a.user_id, COUNT(*) OVER (PARTITION BY a.user_id ORDER BY a.event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n
FROM orders a JOIN orders b ON a.user_id = b.user_id;
