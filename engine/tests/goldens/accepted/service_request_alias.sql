CREATE FEATURE SERVICE case_service (user_id BIGINT) AS
SELECT r.user_id, s.orders_1h FROM request AS r LEFT JOIN spend AS s ON r.user_id = s.user_id;
