CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.price
FROM request
JOIN prices p ON p.merchant_id = request.merchant_id;
