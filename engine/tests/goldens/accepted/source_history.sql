CREATE SOURCE parcels WITH (schema = 'orders.v1', timestamp = 'event_time', history = 'past/nowhere/*.parquet');

CREATE FEATURE VIEW user_parcels AS
SELECT user_id, COUNT(*) OVER day AS parcels_24h
FROM parcels
WINDOW day AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
