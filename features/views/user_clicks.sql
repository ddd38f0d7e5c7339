-- What a customer does in the web site and the app: an account takeover begins with a hasty look around.
CREATE FEATURE VIEW user_clicks
WITH (
  description = 'Click behaviour per user',
  owner       = 'fraud',
  lateness    = '1 day'
) AS
SELECT
  user_id,
  -- Pages opened in the last ten minutes
  COUNT(*)                                    OVER minutes AS clicks_10m,
  -- Pages opened in the last hour
  COUNT(*)                                    OVER hour    AS clicks_1h,
  -- Different devices in the last hour
  COUNT(DISTINCT device_id)                   OVER hour    AS click_devices_1h,
  -- Visits in the last 24 hours
  COUNT(DISTINCT session_id)                  OVER day     AS sessions_24h,
  -- Different devices in the last 24 hours
  COUNT(DISTINCT device_id)                   OVER day     AS click_devices_24h,
  -- How often the account's or the security page was opened in the last 24 hours
  COUNT(*) FILTER (WHERE page IN ('account', 'security')) OVER day AS account_pages_24h,
  -- How long pages stayed open in the last hour on average, in milliseconds
  AVG(dwell_ms)                               OVER hour    AS avg_dwell_ms_1h,
  -- Page opened last within 24 hours
  LAST_VALUE(page)                            OVER day     AS last_page,
  -- How much of the last day's clicks fell in the last ten minutes, from 0 to 1
  CAST(COUNT(*) OVER minutes AS DOUBLE) / NULLIF(COUNT(*) OVER day, 0) AS click_burst
FROM clicks
WINDOW
  minutes AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
  hour    AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'     PRECEDING AND CURRENT ROW),
  day     AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day'      PRECEDING AND CURRENT ROW);
