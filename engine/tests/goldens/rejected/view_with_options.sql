CREATE VIEW cleaned WITH (owner = 'me') AS SELECT * FROM orders;
