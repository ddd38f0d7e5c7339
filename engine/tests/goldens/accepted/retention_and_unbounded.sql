-- What is kept of this is not for ever …
CREATE SOURCE kept WITH (schema = 'orders.v1', timestamp = 'event_time', retention = '400 days');

-- … and these need all of it, by one of their frames each.
CREATE FEATURE VIEW since_ever AS
SELECT
  user_id,
  SUM(amount) OVER hour AS spend_1h,
  SUM(amount) OVER ever AS spend
FROM kept
WINDOW
  hour AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
  ever AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW of_few AS
SELECT
  user_id,
  LAST_VALUE(amount) OVER (PARTITION BY user_id ORDER BY event_time ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS last
FROM kept;

CREATE FEATURE VIEW unsaid AS
SELECT user_id, COUNT(*) OVER (PARTITION BY user_id ORDER BY event_time) AS so_far
FROM kept;

CREATE FEATURE VIEW of_a_day AS
SELECT user_id, COUNT(*) OVER (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS n
FROM kept;
