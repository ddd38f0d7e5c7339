CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE VIEW cheap AS SELECT * FROM prices WHERE price < 2;

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.price, q.price AS also
FROM request
LEFT JOIN cheap p ON p.merchant_id = request.merchant_id
ASOF JOIN prices q MATCH_CONDITION (request.as_of >= q.since) ON q.merchant_id = request.merchant_id;

CREATE FEATURE SERVICE case_other (merchant_id BIGINT) AS
SELECT p.price
FROM request
ASOF JOIN cheap p MATCH_CONDITION (request.as_of >= p.since) ON p.merchant_id = request.merchant_id;
