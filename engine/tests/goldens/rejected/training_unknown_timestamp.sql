CREATE TRAINING SET bad WITH (service = 'score', timestamp = 'att') AS SELECT user_id, amount, at, fraud FROM labels;
