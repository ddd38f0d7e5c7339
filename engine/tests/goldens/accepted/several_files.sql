-- file: a.sql
CREATE FEATURE VIEW first_view AS
SELECT user_id, COUNT(*) OVER w AS n FROM later_view
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
-- file: z.sql
CREATE VIEW later_view AS SELECT * FROM orders WHERE NOT is_gift;
