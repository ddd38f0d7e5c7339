CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_2h FROM request LEFT JOIN spend s ON s.user_id = request.user_id;
