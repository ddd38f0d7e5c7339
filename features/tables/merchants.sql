-- One row for each merchant. The columns are declared, so that the definitions check before there is data.
CREATE EXTERNAL TABLE merchants (
  merchant_id    BIGINT NOT NULL,
  name           VARCHAR NOT NULL,
  -- What it sells: 'grocery', 'travel', 'digital', …
  category       VARCHAR NOT NULL,
  -- ISO 3166 alpha-2 code
  country        VARCHAR NOT NULL,
  -- How lax its checks are, from 0 to 1
  risk_score     DOUBLE NOT NULL,
  -- What a purchase in its category usually costs, in US dollars
  typical_amount DOUBLE NOT NULL
)
STORED AS PARQUET LOCATION 'data/merchants.parquet';
