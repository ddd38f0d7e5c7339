CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT now() AS at FROM request;
