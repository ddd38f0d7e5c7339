CREATE FEATURE VIEW case_view AS
SELECT "user_id" AS "Customer", COUNT(*) OVER "Last Hour" AS "Orders"
FROM "orders"
WINDOW "Last Hour" AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
