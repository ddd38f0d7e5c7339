CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.visits
FROM request
ASOF JOIN pairs p MATCH_CONDITION (request.as_of >= p.visits) ON p.merchant_id = request.merchant_id;
