CREATE SOURCE transactions WITH (connector = 'files', location = 'DATA/transactions.parquet', timestamp = 'event_time');
CREATE FEATURE VIEW spend AS
SELECT user_id,
  COUNT(amount) OVER h AS cnt_1h, SUM(amount) OVER h AS sum_1h, AVG(amount) OVER h AS avg_1h, MAX(amount) OVER h AS max_1h,
  COUNT(amount) OVER d AS cnt_24h, SUM(amount) OVER d AS sum_24h, AVG(amount) OVER d AS avg_24h, MAX(amount) OVER d AS max_24h,
  COUNT(amount) OVER w AS cnt_7d, SUM(amount) OVER w AS sum_7d, AVG(amount) OVER w AS avg_7d, MAX(amount) OVER w AS max_7d,
  COUNT(DISTINCT merchant_id) OVER d AS merchants_24h, STDDEV(amount) OVER w AS std_7d, LAST_VALUE(country) OVER w AS last_country
FROM transactions
WINDOW h AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
 d AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
 w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE w1 (user_id BIGINT) AS
SELECT w.cnt_1h, w.sum_1h, w.avg_1h, w.max_1h, w.cnt_24h, w.sum_24h, w.avg_24h, w.max_24h, w.cnt_7d, w.sum_7d, w.avg_7d, w.max_7d, w.merchants_24h, w.std_7d, w.last_country
FROM request LEFT JOIN spend w ON w.user_id = request.user_id;
