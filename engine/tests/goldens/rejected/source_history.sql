CREATE SOURCE a WITH (schema = 'orders.v1', timestamp = 'event_time', history = 'past/*.csv');
CREATE SOURCE b WITH (schema = 'orders.v1', timestamp = 'event_time', history = 'https://example.com/*.parquet');
CREATE SOURCE c WITH (schema = 'orders.v1', timestamp = 'event_time', history = 'past/[a.parquet');
CREATE SOURCE d WITH (schema = 'orders.v1', timestamp = 'event_time', history = '');
CREATE SOURCE e WITH (connector = 'files', location = 'x/*.csv', timestamp = 'event_time', history = 'past/*.parquet');
CREATE SOURCE f WITH (schema = 'orders.v1', timestamp = 'event_time', history = 3);
