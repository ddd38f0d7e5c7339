CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  SUM(dollars) OVER w AS spend
FROM (SELECT user_id, event_time, amount * 1.1 AS dollars FROM orders WHERE amount > 0) o
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
