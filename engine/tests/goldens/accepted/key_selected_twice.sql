CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  user_id AS same_user,
  COUNT(*) OVER w AS n
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
