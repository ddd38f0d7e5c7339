CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_1h FROM request LEFT JOIN spend s ON s.user_id = request.user_id WHERE s.orders_1h > 1;
