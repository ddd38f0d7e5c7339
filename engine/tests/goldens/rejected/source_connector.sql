CREATE SOURCE bad WITH (connector = 'kafak', schema = 'orders.v1', timestamp = 'event_time');
