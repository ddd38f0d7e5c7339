CREATE FEATURE SERVICE bad (user_id BIGINT, amount DOUBLE) AS
SELECT s.orders_1h FROM spend s;
