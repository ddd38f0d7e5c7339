CREATE TABLE merchants2 (merchant_id BIGINT);
