CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*)       OVER w AS orders,
  COUNT(country) OVER w AS with_country,
  COUNT(1)       OVER w AS ones
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
