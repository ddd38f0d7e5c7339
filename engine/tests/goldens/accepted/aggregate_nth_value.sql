CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  NTH_VALUE(amount, 2)  OVER w AS second,
  NTH_VALUE(amount, -2) OVER w AS last_but_one
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
