CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.price
FROM request
LEFT JOIN prices p USING (merchant_id);
