CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  MIN(amount)     OVER w AS smallest,
  MAX(status)     OVER w AS last_in_the_alphabet,
  MAX(event_time) OVER w AS latest,
  MIN(is_gift)    OVER w AS all_gifts
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
