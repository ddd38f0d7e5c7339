CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  AVG(amount) OVER (PARTITION BY user_id ORDER BY event_time ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS last_10,
  AVG(amount) OVER (PARTITION BY user_id ORDER BY event_time ROWS 2 PRECEDING) AS last_3
FROM orders;
