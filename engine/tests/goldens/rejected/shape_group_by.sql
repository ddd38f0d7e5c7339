CREATE FEATURE VIEW bad AS
SELECT user_id, COUNT(*) AS n
FROM orders
GROUP BY user_id;
