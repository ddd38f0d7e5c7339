CREATE TRAINING SET case_set WITH (service = 'score', timestamp = 'at') AS
SELECT l.user_id, l.amount, l.at, m.category, l.fraud
FROM labels l LEFT JOIN merchants m ON m.merchant_id = l.merchant_id;
