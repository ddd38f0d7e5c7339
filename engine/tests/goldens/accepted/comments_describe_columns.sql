CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  -- Orders of the last hour,
  -- whatever became of them
  COUNT(*) OVER w AS n,
  SUM(amount) OVER w AS s -- in US dollars
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
