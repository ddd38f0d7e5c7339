CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT r.amount FROM request LEFT JOIN request r ON r.user_id = request.user_id;
