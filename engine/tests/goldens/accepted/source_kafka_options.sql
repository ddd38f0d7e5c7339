CREATE SOURCE payments WITH (
  description = 'Payments', owner = 'billing', schema = 'orders.v1', topic = 'pay-ments', timestamp = 'event_time', event_id = 'order_id',
  history = 's3://bucket/payments/*.parquet', max_future = '1 hour', retention = '400 days', partitions = 4, start = 'earliest', dead_letter_topic = 'payments.dead',
  kafka.security.protocol = 'SASL_SSL', kafka.sasl.password = 'hunter2'
);
