CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  VAR(amount)        OVER w AS a,
  VAR_POP(amount)    OVER w AS b,
  STDDEV(amount)     OVER w AS c,
  STDDEV_POP(amount) OVER w AS d
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
