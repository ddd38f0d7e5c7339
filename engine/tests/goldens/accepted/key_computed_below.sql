CREATE FEATURE VIEW case_view AS
SELECT area, COUNT(*) OVER w AS n
FROM (SELECT lower(substr(country, 1, 2)) AS area, event_time FROM orders)
WINDOW w AS (PARTITION BY area ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
