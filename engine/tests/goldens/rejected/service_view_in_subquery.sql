CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.n FROM request LEFT JOIN (SELECT user_id, orders_1h + 1 AS n FROM spend) s ON s.user_id = request.user_id;
