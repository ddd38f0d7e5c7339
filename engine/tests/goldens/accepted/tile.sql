CREATE FEATURE VIEW case_view WITH (tile = '5 minutes', lateness = '1 day') AS
SELECT
  user_id,
  COUNT(*) OVER w AS n,
  AVG(amount) OVER w AS mean,
  COUNT(DISTINCT merchant_id) OVER w AS merchants
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW);
