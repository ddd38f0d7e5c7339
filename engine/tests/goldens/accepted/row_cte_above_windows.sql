CREATE FEATURE VIEW case_view AS
WITH counted AS (
  SELECT user_id, COUNT(*) OVER w AS n, SUM(amount) OVER w AS s
  FROM orders
  WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
)
SELECT user_id, n, s / NULLIF(n, 0) AS mean
FROM counted;
