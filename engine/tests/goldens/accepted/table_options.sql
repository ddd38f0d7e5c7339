CREATE EXTERNAL TABLE stated (currency VARCHAR, rate DOUBLE) STORED AS CSV LOCATION 'data/rates.txt'
OPTIONS (has_header false, delimiter ';', comment '#', null_value '-');
CREATE EXTERNAL TABLE inferred STORED AS CSV LOCATION 'data/rates.txt'
OPTIONS (has_header false, delimiter ';', comment '#');
