CREATE VIEW request AS SELECT * FROM orders;
