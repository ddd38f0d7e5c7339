CREATE SOURCE old WITH (connector = 'files', location = 'data/labels.csv', timestamp = 'at');
CREATE FEATURE VIEW case_view AS
SELECT user_id, COUNT(*) FILTER (WHERE fraud) OVER w AS frauds
FROM old
WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
