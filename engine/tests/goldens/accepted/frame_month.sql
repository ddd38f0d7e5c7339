CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  SUM(amount) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 month' PRECEDING AND CURRENT ROW) AS month,
  SUM(amount) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 year 2 months 3 days 4 hours' PRECEDING AND CURRENT ROW) AS long
FROM orders;
