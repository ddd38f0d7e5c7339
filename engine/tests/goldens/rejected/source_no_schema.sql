CREATE SOURCE bad WITH (topic = 'bad', timestamp = 'event_time');
