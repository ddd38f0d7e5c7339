CREATE FEATURE VIEW case_view WITH (lateness = '2 days') AS
SELECT
  user_id,
  AVG(amount) OVER (PARTITION BY user_id ORDER BY event_time ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS last_5,
  AVG(amount) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS last_day
FROM orders;
