-- What was paid.
CREATE VIEW approved AS SELECT * FROM orders WHERE status = 'approved';
CREATE VIEW dear AS SELECT user_id, event_time, amount FROM approved WHERE amount > 100;
CREATE FEATURE VIEW case_view AS
SELECT
  user_id,
  COUNT(*) OVER w AS n
FROM dear
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
