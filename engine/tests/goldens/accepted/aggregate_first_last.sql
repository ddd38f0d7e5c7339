CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  FIRST_VALUE(country) OVER w AS first_country,
  LAST_VALUE(country)  OVER w AS last_country,
  LAST_VALUE(country) IGNORE NULLS OVER w AS last_known_country
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
