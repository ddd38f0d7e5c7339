-- A merchant's month and week, from a tiled and an exact view.
CREATE FEATURE SERVICE merchant_profile_v1 (merchant_id BIGINT) AS
SELECT
  t.traffic_1h,
  t.traffic_24h,
  t.traffic_30d,
  t.revenue_30d,
  t.avg_amount_30d,
  t.traffic_vs_usual,
  r.merchant_category,
  r.merchant_risk_score,
  r.declined_rate_7d,
  r.refund_rate_7d
FROM request
LEFT JOIN merchant_traffic t ON t.merchant_id = request.merchant_id
LEFT JOIN merchant_risk    r ON r.merchant_id = request.merchant_id;
