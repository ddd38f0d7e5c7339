CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT p.price FROM request
ASOF JOIN prices p MATCH_CONDITION (request.as_of >= p.since) ON p.merchant_id = request.merchant_id;

CREATE TRAINING SET case_set WITH (service = 'case_service', timestamp = 'at') AS
SELECT l.merchant_id, at, p.since FROM labels l
ASOF JOIN prices p MATCH_CONDITION (l.at >= p.since) ON p.merchant_id = l.merchant_id;
