CREATE TRAINING SET bad WITH (service = 'score', timestamp = 'amount') AS SELECT user_id, amount, at, fraud FROM labels;
