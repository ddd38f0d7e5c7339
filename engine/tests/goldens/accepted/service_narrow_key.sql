CREATE FEATURE SERVICE case_service (user_id INT) AS
SELECT s.orders_1h FROM request LEFT JOIN spend s ON s.user_id = request.user_id;
