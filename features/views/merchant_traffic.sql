-- How busy a merchant is against its own month. Tiles bound what a popular merchant's month takes: event times are
-- rounded down to five minutes at the tail of a window, online and in training alike.
CREATE FEATURE VIEW merchant_traffic
WITH (
  description = 'Approved traffic per merchant over a month',
  owner       = 'merchants',
  tile        = '5 minutes'
) AS
SELECT
  merchant_id,
  -- Approved transactions in the last hour
  COUNT(*)       OVER hour  AS traffic_1h,
  -- Approved transactions in the last 24 hours
  COUNT(*)       OVER day   AS traffic_24h,
  -- Approved transactions in thirty days
  COUNT(*)       OVER month AS traffic_30d,
  -- US dollars taken in thirty days
  SUM(amount)    OVER month AS revenue_30d,
  -- Mean amount of thirty days, in US dollars
  AVG(amount)    OVER month AS avg_amount_30d,
  -- Spread of the amounts of thirty days, in US dollars
  STDDEV(amount) OVER month AS stddev_amount_30d,
  -- Largest amount of thirty days, in US dollars
  MAX(amount)    OVER month AS max_amount_30d,
  -- The last hour's traffic against the mean hour of thirty days: 1 is as usual
  COUNT(*) OVER hour / NULLIF(COUNT(*) OVER month / 720.0, 0) AS traffic_vs_usual
FROM approved_transactions
WINDOW
  hour  AS (PARTITION BY merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'  PRECEDING AND CURRENT ROW),
  day   AS (PARTITION BY merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day'   PRECEDING AND CURRENT ROW),
  month AS (PARTITION BY merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW);
