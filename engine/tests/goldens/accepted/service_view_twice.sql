CREATE FEATURE SERVICE case_service (payer BIGINT, payee BIGINT) AS
SELECT a.orders_1h AS payer_orders, b.orders_1h AS payee_orders, a.orders_1h > b.orders_1h AS pays_more
FROM request
LEFT JOIN spend a ON a.user_id = request.payer
LEFT JOIN spend b ON b.user_id = request.payee;
