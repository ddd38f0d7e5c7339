-- Card transactions as the payment processor reports them, whatever became of them.
CREATE SOURCE transactions WITH (
  description = 'Card transactions: approved, declined and refunded',
  schema      = 'transactions.v1',
  topic       = 'transactions',
  timestamp   = 'event_time',
  event_id    = 'transaction_id'
);
