CREATE EXTERNAL TABLE prices (merchant_id BIGINT, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'data/prices.csv' OPTIONS (timestamp 'since', max_age '7 days');

CREATE FEATURE SERVICE case_service (merchant_id BIGINT) AS
SELECT date_part('hour', t) AS hour, p.price
FROM (SELECT merchant_id, as_of AS t FROM request r) q
ASOF JOIN prices p MATCH_CONDITION (q.t >= p.since) ON p.merchant_id = q.merchant_id;
