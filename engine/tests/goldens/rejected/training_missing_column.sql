CREATE TRAINING SET bad WITH (service = 'score', timestamp = 'at') AS SELECT user_id, at, fraud FROM labels;
