-- What the fraud model reads to score a transaction before it goes through: the amount, the customer's spend, the
-- card's velocity and last purchases, the customer's clicks, the merchant. `request` is that transaction.
CREATE FEATURE SERVICE fraud_v1 (user_id BIGINT, card_id BIGINT, merchant_id BIGINT, amount DOUBLE) AS
SELECT
  -- The amount asked for, in US dollars
  request.amount,

  s.txn_count_1h,
  s.txn_count_24h,
  s.avg_amount_24h,
  s.merchants_24h,
  s.foreign_txns_24h,
  s.devices_24h,
  s.last_country,
  s.spend_burst,
  -- The amount against the customer's mean of the last 24 hours
  request.amount / NULLIF(s.avg_amount_24h, 0) AS amount_vs_avg,
  -- The amount against what the customer usually pays
  request.amount / NULLIF(s.usual_amount, 0) AS amount_vs_usual,
  -- Whether it would be the customer's largest amount in seven days; NULL without any
  request.amount > s.max_amount_7d AS is_largest_7d,

  a.card_txn_count_10m,
  a.card_txn_count_1h,
  a.card_merchants_1h,
  a.card_countries_24h,
  a.card_devices_24h,
  a.card_online_1h,
  a.card_declined_24h,
  a.card_spend_1h,
  a.card_burst,
  -- How many standard deviations the amount lies above the card's mean of seven days
  (request.amount - a.card_avg_amount_7d) / NULLIF(a.card_stddev_amount_7d, 0) AS amount_zscore,

  l.last_10_merchants,
  l.last_10_online,
  l.last_3_seconds,
  -- The amount against the card's last one: testers climb
  request.amount / NULLIF(l.last_amount, 0) AS amount_vs_last,

  c.clicks_10m,
  c.clicks_1h,
  c.click_devices_1h,
  c.account_pages_24h,
  c.avg_dwell_ms_1h,
  c.click_burst,

  m.merchant_category,
  m.merchant_risk_score,
  m.declined_rate_7d,
  m.amount_vs_typical_7d
FROM request
LEFT JOIN user_spend       s ON s.user_id     = request.user_id
LEFT JOIN card_activity    a ON a.card_id     = request.card_id
LEFT JOIN card_last_events l ON l.card_id     = request.card_id
LEFT JOIN user_clicks      c ON c.user_id     = request.user_id
LEFT JOIN merchant_risk    m ON m.merchant_id = request.merchant_id;
