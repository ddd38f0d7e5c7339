CREATE TRAINING SET bad WITH (service = 'scor', timestamp = 'at') AS SELECT user_id, amount, at, fraud FROM labels;
