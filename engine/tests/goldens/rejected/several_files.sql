-- file: one.sql
CREATE SOURCE payments WITH (schema = 'payments.v1', timestamp = 'at');
-- file: two.sql
CREATE FEATURE VIEW bad AS
SELECT user_id, SUM(amout) OVER w AS n
FROM orders
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

CREATE FEATURE SERVICE s (user_id BIGNT) AS SELECT request.user_id FROM request;
-- file: three.sql
CREATE TRAINING SET t WITH (service = 'scores', timestamp = 'at') AS SELECT * FROM labels

CREATE FEATURE VIEW x AS SELECT 1;
-- file: four.sql
CREATE FEATURE VIEW quiet AS
SELECT user_id, COUNT(*) OVER w AS n
FROM payments
WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
