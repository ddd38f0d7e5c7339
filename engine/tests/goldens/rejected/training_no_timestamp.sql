CREATE TRAINING SET bad WITH (service = 'score') AS SELECT user_id, amount, at, fraud FROM labels;
