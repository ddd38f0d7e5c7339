CREATE SOURCE bad WITH (location = 'data/labels.csv', timestamp = 'at');
