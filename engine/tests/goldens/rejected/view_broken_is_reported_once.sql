CREATE VIEW cleaned AS SELECT user_id, event_time, amonut FROM orders;
CREATE FEATURE VIEW bad AS
SELECT user_id, COUNT(*) OVER w AS n
FROM cleaned
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
