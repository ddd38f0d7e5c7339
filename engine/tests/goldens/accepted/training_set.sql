-- Labels with what the model would have read.
CREATE TRAINING SET case_set WITH (service = 'score', timestamp = 'label_time', owner = 'fraud') AS
SELECT user_id, amount, at - INTERVAL '1 microsecond' AS label_time, fraud FROM labels WHERE amount > 0;
