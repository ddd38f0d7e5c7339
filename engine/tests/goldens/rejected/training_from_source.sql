CREATE TRAINING SET bad WITH (service = 'score', timestamp = 'event_time') AS SELECT user_id, amount, event_time FROM orders;
