CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_1h FROM request LEFT JOIN spnd s ON s.user_id = request.user_id;
