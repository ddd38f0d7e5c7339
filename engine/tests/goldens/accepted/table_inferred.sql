CREATE EXTERNAL TABLE inferred STORED AS CSV LOCATION 'data/merchants.csv';
