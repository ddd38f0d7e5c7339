CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  BOOL_AND(is_gift) OVER w AS only_gifts,
  BOOL_OR(is_gift)  OVER w AS any_gift
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
