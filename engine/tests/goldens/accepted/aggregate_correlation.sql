CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  CORR(amount, items) OVER w AS c,
  COVAR_POP(amount, items) OVER w AS d,
  REGR_SLOPE(amount, items) OVER w AS e
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
