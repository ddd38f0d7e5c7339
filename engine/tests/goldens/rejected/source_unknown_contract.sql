CREATE SOURCE bad WITH (schema = 'order.v1', timestamp = 'event_time');
