CREATE SOURCE transactions WITH (
  schema = 'transactions.v1',
  topic = 'transactions',
  timestmp = 'event_time'
);

CREATE SOURCE no_schema WITH (timestamp = 'event_time');

CREATE SOURCE no_timestamp WITH (schema = 'a.v1', topic = 'a');

CREATE SOURCE files_without_connector WITH (location = 'events/*.parquet', timestamp = 'event_time');

CREATE SOURCE topic_with_files WITH (connector = 'files', location = 'events/*.parquet', topic = 'a', kafka.security.protocol = 'SSL', timestamp = 't');

CREATE SOURCE no_location WITH (connector = 'files', timestamp = 't');

CREATE SOURCE no_format WITH (connector = 'files', location = 'events/', timestamp = 't');

CREATE SOURCE wrong_values WITH (
  connector = 'kafkaa',
  schema = 5,
  topic = 'my topic',
	timestamp = '',
  start = 'latst',
  partitions = 'four',
  max_future = '1 month',
  event_id = id,
  owner = "fraud",
  owner = 'fraud',
  format = 'xml'
);

CREATE SOURCE missing_comma WITH (
  schema = 'a.v1'
  timestamp = 't'
);

CREATE SOURCE missing_parenthesis WITH (schema = 'a.v1', timestamp = 't';

CREATE SOURCE missing_value WITH (schema = , timestamp = 't');

CREATE SOURCE no_options;

CREATE SOURCE request WITH (schema = 'a.v1', timestamp = 't');

CREATE SOURCE 1st WITH (schema = 'a.v1', timestamp = 't');

CREATE SOURCE "a/b" WITH (schema = 'a.v1', timestamp = 't');

CREATE SOURCE more WITH (schema = 'a.v1', timestamp = 't') AS SELECT 1;

CREATE SOURCE missing_quote WITH (
  schema = 'a.v1,
  timestamp = 't'
);
