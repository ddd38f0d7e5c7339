-- What a customer spends, on all cards together.
CREATE FEATURE VIEW user_spend
WITH (
  description = 'Approved card spend per user',
  owner       = 'fraud',
  -- Transactions arrive up to hours late, and reads reach a day back.
  lateness    = '1 day'
) AS
SELECT
  user_id,
  -- Approved transactions in the last hour
  COUNT(*)                                OVER hour AS txn_count_1h,
  -- US dollars spent in the last hour
  SUM(amount)                             OVER hour AS spend_1h,
  -- Approved transactions in the last 24 hours
  COUNT(*)                                OVER day  AS txn_count_24h,
  -- Mean amount of the last 24 hours, in US dollars
  AVG(amount)                             OVER day  AS avg_amount_24h,
  -- Different merchants in the last 24 hours
  COUNT(DISTINCT merchant_id)             OVER day  AS merchants_24h,
  -- Transactions at merchants outside the US in the last 24 hours
  COUNT(*) FILTER (WHERE country <> 'US') OVER day  AS foreign_txns_24h,
  -- Different devices that ordered online in the last 24 hours
  COUNT(DISTINCT device_id)               OVER day  AS devices_24h,
  -- Country of the latest transaction within seven days
  LAST_VALUE(country)                     OVER week AS last_country,
  -- Largest amount within seven days, in US dollars
  MAX(amount)                             OVER week AS max_amount_7d,
  -- Spread of the amounts of seven days, in US dollars; NULL for fewer than two transactions
  STDDEV(amount)                          OVER week AS stddev_amount_7d,
  -- What the customer usually pays: the mean of thirty days, without the last one, which may be a fraud's
  AVG(amount)                             OVER usual AS usual_amount,
  -- How much of the last day's spend fell in the last hour, from 0 to 1
  SUM(amount) OVER hour / NULLIF(SUM(amount) OVER day, 0) AS spend_burst
FROM transactions
WHERE status = 'approved'
WINDOW
  hour  AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'  PRECEDING AND CURRENT ROW),
  day   AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day'   PRECEDING AND CURRENT ROW),
  week  AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '7 days'  PRECEDING AND CURRENT ROW),
  usual AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '30 days' PRECEDING AND INTERVAL '1 day' PRECEDING);
