CREATE FEATURE VIEW bad AS
SELECT user_id, amount * 2 AS n
FROM orders;
