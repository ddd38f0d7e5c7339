CREATE FEATURE VIEW case_view AS
WITH approved AS (SELECT * FROM orders WHERE status = 'approved'),
     dear AS (SELECT user_id, event_time AS at, amount FROM approved WHERE amount > 100)
SELECT user_id, COUNT(*) OVER w AS n
FROM dear
WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
