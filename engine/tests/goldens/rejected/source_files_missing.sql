CREATE SOURCE bad WITH (connector = 'files', location = 'events/*.parquet', timestamp = 'at');
