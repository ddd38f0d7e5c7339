CREATE FEATURE VIEW bad AS
SELECT
  user_id,
  SUM(amout) OVER w AS a,
  LEAD(amount) OVER w AS b
FROM orders
WHERE statuss = 'approved'
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
