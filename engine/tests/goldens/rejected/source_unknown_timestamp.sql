CREATE SOURCE bad WITH (schema = 'orders.v1', timestamp = 'event_tme');
