CREATE SOURCE bad WITH (schema = 'orders.v1', timestamp = 'amount');
