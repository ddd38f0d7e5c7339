CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT o.amount FROM request LEFT JOIN orders o ON o.user_id = request.user_id;
