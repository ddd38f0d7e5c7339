-- A card's latest purchases, however long ago: frames that count rows, not time.
CREATE FEATURE VIEW card_last_events
WITH (
  description = 'The last ten approved transactions of each card',
  owner       = 'fraud',
  -- A frame of rows has no length in time: this is how far back reads reach.
  lateness    = '30 days'
) AS
SELECT
  card_id,
  -- How many of the last ten there are
  COUNT(*)                                   OVER ten   AS last_10_count,
  -- Mean amount of the last ten, in US dollars
  AVG(amount)                                OVER ten   AS last_10_avg_amount,
  -- Largest amount of the last ten, in US dollars
  MAX(amount)                                OVER ten   AS last_10_max_amount,
  -- Different merchants among the last ten
  COUNT(DISTINCT merchant_id)                OVER ten   AS last_10_merchants,
  -- Online purchases among the last ten
  COUNT(*) FILTER (WHERE channel = 'online') OVER ten   AS last_10_online,
  -- Amount of the latest, in US dollars
  LAST_VALUE(amount)                         OVER ten   AS last_amount,
  -- Country of the latest
  LAST_VALUE(country)                        OVER ten   AS card_last_country,
  -- Seconds from the first to the last of the latest three: a thief is in a hurry
  EXTRACT(EPOCH FROM MAX(event_time) OVER three) - EXTRACT(EPOCH FROM MIN(event_time) OVER three) AS last_3_seconds
FROM approved_transactions
WINDOW
  ten   AS (PARTITION BY card_id ORDER BY event_time ROWS BETWEEN 9 PRECEDING AND CURRENT ROW),
  three AS (PARTITION BY card_id ORDER BY event_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW);
