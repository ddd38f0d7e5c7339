CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices_null.csv' OPTIONS (timestamp 'since');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.price
FROM request
ASOF JOIN prices p MATCH_CONDITION (request.as_of >= p.since) ON p.merchant_id = request.merchant_id;
