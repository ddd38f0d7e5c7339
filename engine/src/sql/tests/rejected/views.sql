CREATE VIEW with_options WITH (owner = 'a') AS SELECT 1;

CREATE VIEW changes AS INSERT INTO t VALUES (1);

CREATE VIEW locks AS SELECT 1 FROM t FOR UPDATE;

CREATE VIEW makes AS SELECT 1 INTO t;

CREATE VIEW unfinished AS SELECT a FROM;

CREATE VIEW open_parenthesis AS SELECT SUM(a FROM t;

CREATE VIEW trailing AS SELECT a b c FROM t;

CREATE FEATURE VIEW wrong_view_options WITH (
  descripton = 'x', tile = '5 parsecs', tile = '1 hour', lateness = '1.5 hours', owner = TRUE
) AS SELECT 1;

CREATE FEATURE VIEW unclosed_options WITH (owner = 'a' AS SELECT 1;

CREATE FEATURE VIEW unknown_window AS
SELECT user_id, SUM(amount) OVER hour AS spend_1h, SUM(amount) OVER dayy AS spend_24h
FROM transactions
WINDOW day AS (PARTITION BY user_id ORDER BY event_time);

CREATE FEATURE VIEW extends_a_frame AS
SELECT SUM(amount) OVER (day ROWS 3 PRECEDING) AS a, SUM(amount) OVER (day) AS b
FROM transactions
WINDOW day AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW overrides AS
SELECT SUM(amount) OVER (w PARTITION BY card_id) AS a, SUM(amount) OVER (w ORDER BY card_id) AS b
FROM transactions
WINDOW w AS (ORDER BY event_time), w AS (PARTITION BY user_id);

CREATE FEATURE VIEW circle AS
SELECT SUM(amount) OVER a AS x FROM transactions WINDOW a AS (b ORDER BY event_time), b AS (a);

CREATE FEATURE SERVICE no_signature AS SELECT 1;

CREATE FEATURE SERVICE empty_signature () AS SELECT 1;

CREATE FEATURE SERVICE wrong_signature (user_id BIGNIT, amount, user_id BIGINT NOT NULL, a INT, A INT, b INT c) AS SELECT 1;

CREATE FEATURE SERVICE wrong_option (a INT) WITH (tile = '1 s') AS SELECT 1;

CREATE FEATURE SERVICE unclosed_signature (a INT AS SELECT 1;

CREATE TRAINING SET no_options AS SELECT 1;

CREATE TRAINING SET no_service WITH (timestmap = 'label_time') AS SELECT 1;

CREATE TRAINING SET unclosed WITH (service = 'a', timestamp = 't') AS SELECT 'x FROM t;
