CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_1h FROM request LEFT JOIN spend s ON s.orders_1h = request.user_id;
