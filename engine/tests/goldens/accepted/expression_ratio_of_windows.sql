CREATE FEATURE VIEW case_view WITH (description = 'Bursts of spend', owner = 'fraud') AS
SELECT
  user_id,
  -- How much of the day's spend fell in the last hour
  SUM(amount) OVER hour / NULLIF(SUM(amount) OVER day, 0) AS burst
FROM orders
WINDOW hour AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW), day AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
