CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*) OVER w AS orders,
  SUM(amount) OVER w AS spend,
  LAST_VALUE(country) OVER w AS country
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
