CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  SUM(amount) OVER w AS of_doubles,
  SUM(price)  OVER w AS of_decimals,
  SUM(items)  OVER w AS of_integers
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
