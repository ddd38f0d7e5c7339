CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*) FILTER (WHERE status = 'approved') OVER w AS approved,
  SUM(amount) FILTER (WHERE country <> 'US' AND amount > 10) OVER w AS abroad,
  COUNT(DISTINCT merchant_id) FILTER (WHERE is_gift) OVER w AS gift_shops
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
