CREATE FEATURE VIEW case_view WITH (tile = '1 hour') AS
SELECT
  user_id,
  COUNT(*) OVER w AS n,
  MAX(amount) OVER w AS largest
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
