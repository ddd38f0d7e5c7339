-- What signed-in customers open in the web site and the app.
CREATE SOURCE clicks WITH (
  description = 'Page views of signed-in customers',
  schema      = 'clicks.v1',
  topic       = 'clicks',
  timestamp   = 'event_time',
  event_id    = 'click_id'
);
