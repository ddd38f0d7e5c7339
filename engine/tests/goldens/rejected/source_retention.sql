CREATE SOURCE a WITH (schema = 'orders.v1', timestamp = 'event_time', retention = '5 hours');
CREATE SOURCE b WITH (schema = 'orders.v1', timestamp = 'event_time', retention = '6 months');
CREATE SOURCE c WITH (schema = 'orders.v1', timestamp = 'event_time', retention = 400);
CREATE SOURCE d WITH (schema = 'orders.v1', timestamp = 'event_time', retentoin = '400 days');
CREATE SOURCE e WITH (connector = 'files', location = 'data/labels.csv', timestamp = 'at', retention = '400 days');
