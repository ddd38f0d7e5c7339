CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT p.visits FROM request LEFT JOIN pairs p ON p.user_id = request.user_id;
