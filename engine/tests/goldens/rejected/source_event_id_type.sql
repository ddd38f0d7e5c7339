CREATE SOURCE bad WITH (schema = 'orders.v1', timestamp = 'event_time', event_id = 'amount');
