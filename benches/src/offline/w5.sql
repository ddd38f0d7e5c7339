CREATE SOURCE features WITH (connector = 'files', location = 'DATA/features.parquet', timestamp = 'event_time');
CREATE FEATURE VIEW latest AS
SELECT user_id,
  LAST_VALUE(f_amount) OVER w AS f_amount, LAST_VALUE(f_log) OVER w AS f_log, LAST_VALUE(f_hour) OVER w AS f_hour,
  LAST_VALUE(f_score) OVER w AS f_score, LAST_VALUE(f_risk) OVER w AS f_risk
FROM features
WINDOW w AS (PARTITION BY user_id ORDER BY event_time ROWS BETWEEN CURRENT ROW AND CURRENT ROW);
