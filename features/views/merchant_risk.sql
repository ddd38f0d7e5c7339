-- How a merchant's business goes wrong. Each transaction first meets its merchant's row, then the windows run.
CREATE FEATURE VIEW merchant_risk
WITH (
  description = 'Declines, refunds and unusual amounts per merchant',
  owner       = 'fraud',
  lateness    = '1 day'
) AS
SELECT
  t.merchant_id,
  -- What it sells, as of its latest transaction within seven days
  LAST_VALUE(m.category)      OVER week AS merchant_category,
  -- How lax its checks are, from 0 to 1
  LAST_VALUE(m.risk_score)    OVER week AS merchant_risk_score,
  -- Transactions in the last 24 hours
  COUNT(*)                    OVER day  AS merchant_txn_count_24h,
  -- Different cards in the last 24 hours
  COUNT(DISTINCT t.card_id)   OVER day  AS merchant_cards_24h,
  -- Share of declined attempts in seven days, from 0 to 1
  CAST(COUNT(*) FILTER (WHERE t.status = 'declined') OVER week AS DOUBLE) / NULLIF(COUNT(*) OVER week, 0) AS declined_rate_7d,
  -- Share of refunds in seven days, from 0 to 1
  CAST(COUNT(*) FILTER (WHERE t.status = 'refunded') OVER week AS DOUBLE) / NULLIF(COUNT(*) OVER week, 0) AS refund_rate_7d,
  -- Transactions in seven days from a device in another country than the merchant's
  COUNT(*) FILTER (WHERE t.ip_country <> t.country) OVER week AS foreign_devices_7d,
  -- How many times the category's usual amount is paid here, on the mean of seven days
  AVG(t.amount / m.typical_amount) OVER week AS amount_vs_typical_7d
FROM transactions t
LEFT JOIN merchants m ON m.merchant_id = t.merchant_id
WINDOW
  day  AS (PARTITION BY t.merchant_id ORDER BY t.event_time RANGE BETWEEN INTERVAL '1 day'  PRECEDING AND CURRENT ROW),
  week AS (PARTITION BY t.merchant_id ORDER BY t.event_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW);
