-- Every labelled transaction with what fraud_v1 would have answered for it.
--
-- The model is asked before the transaction goes through, so its features must not know of it. Frames end at the
-- instant they are read at, both ends included: read one microsecond before the event, they hold all that came
-- before it and not the event itself.
CREATE TRAINING SET fraud_training WITH (
  service     = 'fraud_v1',
  timestamp   = 'label_time'
) AS
SELECT
  transaction_id,
  user_id,
  card_id,
  merchant_id,
  amount,
  event_time - INTERVAL '1 microsecond' AS label_time,
  is_fraud
FROM labels;
