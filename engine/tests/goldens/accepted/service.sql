-- What the model reads.
CREATE FEATURE SERVICE case_service (user_id BIGINT, merchant_id BIGINT, amount DOUBLE) WITH (owner = 'fraud') AS
SELECT
  s.orders_1h,
  -- Against the hour
  request.amount / NULLIF(s.spend_1h, 0) AS share,
  p.visits,
  m.category
FROM request
LEFT JOIN spend s ON s.user_id = request.user_id
LEFT JOIN pairs p ON p.merchant_id = request.merchant_id AND p.user_id = request.user_id
LEFT JOIN merchants m ON m.merchant_id = request.merchant_id;
