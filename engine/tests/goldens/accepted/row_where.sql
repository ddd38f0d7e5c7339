CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*) OVER w AS n
FROM orders
WHERE status = 'approved' AND amount BETWEEN 1 AND 100 AND country IN ('US', 'CA')
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
