CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  SUM(amount * items) OVER w AS total,
  AVG(CASE WHEN is_gift THEN amount ELSE 0 END) OVER w AS gifts,
  MAX(upper(status)) OVER w AS shouted
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
