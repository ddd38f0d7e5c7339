CREATE FEATURE SERVICE case_service (user_id VARCHAR) AS
SELECT s.orders_1h FROM request LEFT JOIN spend s ON s.user_id = CAST(request.user_id AS BIGINT);
