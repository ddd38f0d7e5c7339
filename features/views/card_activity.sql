-- How fast a card is used, and where. Declined attempts count too: a thief who tries is a thief.
CREATE FEATURE VIEW card_activity
WITH (
  description = 'Velocity of each card, all attempts',
  owner       = 'fraud',
  -- Transactions arrive up to hours late, and reads reach a day back.
  lateness    = '1 day'
) AS
SELECT
  card_id,
  -- Attempts in the last ten minutes
  COUNT(*)                                      OVER minutes AS card_txn_count_10m,
  -- Attempts in the last hour
  COUNT(*)                                      OVER hour    AS card_txn_count_1h,
  -- Attempts in the last 24 hours
  COUNT(*)                                      OVER day     AS card_txn_count_24h,
  -- Different merchants in the last hour
  COUNT(DISTINCT merchant_id)                   OVER hour    AS card_merchants_1h,
  -- Different merchants' countries in the last 24 hours
  COUNT(DISTINCT country)                       OVER day     AS card_countries_24h,
  -- Different devices in the last 24 hours
  COUNT(DISTINCT device_id)                     OVER day     AS card_devices_24h,
  -- Online attempts in the last hour
  COUNT(*) FILTER (WHERE channel = 'online')    OVER hour    AS card_online_1h,
  -- Declined attempts in the last 24 hours
  COUNT(*) FILTER (WHERE status = 'declined')   OVER day     AS card_declined_24h,
  -- US dollars attempted in the last hour
  SUM(amount)                                   OVER hour    AS card_spend_1h,
  -- Mean amount of seven days, in US dollars
  AVG(amount)                                   OVER week    AS card_avg_amount_7d,
  -- Spread of the amounts of seven days, in US dollars; NULL for fewer than two attempts
  STDDEV(amount)                                OVER week    AS card_stddev_amount_7d,
  -- How much of the last day's attempts fell in the last ten minutes, from 0 to 1
  CAST(COUNT(*) OVER minutes AS DOUBLE) / NULLIF(COUNT(*) OVER day, 0) AS card_burst
FROM transactions
WINDOW
  minutes AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
  hour    AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'     PRECEDING AND CURRENT ROW),
  day     AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day'      PRECEDING AND CURRENT ROW),
  week    AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '7 days'     PRECEDING AND CURRENT ROW);
