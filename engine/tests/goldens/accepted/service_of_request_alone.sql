CREATE FEATURE SERVICE case_service (amount DOUBLE) AS
SELECT ln(amount + 1) AS log_amount, CASE WHEN amount > 100 THEN 'large' ELSE 'small' END AS size FROM request;
