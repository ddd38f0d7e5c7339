CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*) OVER (PARTITION BY user_id ORDER BY event_time RANGE INTERVAL '1 hour' PRECEDING) AS n
FROM orders;
