-- Transactions that moved money. A plain view: feature views over it read the source with this filter inlined.
CREATE VIEW approved_transactions AS
SELECT * FROM transactions WHERE status = 'approved';
