CREATE TRAINING SET bad WITH (service = 'score', timestamp = 'at') AS SELECT [user_id] AS user_id, amount, at FROM labels;
