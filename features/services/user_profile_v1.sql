-- A customer at a glance, for a support desk or a personal page.
CREATE FEATURE SERVICE user_profile_v1 (user_id BIGINT) AS
SELECT
  s.txn_count_24h,
  s.usual_amount,
  s.max_amount_7d,
  s.last_country,
  c.sessions_24h,
  c.click_devices_24h,
  c.last_page,
  -- Whether the customer did anything in the last 24 hours
  s.txn_count_24h + c.sessions_24h > 0 AS is_active
FROM request
LEFT JOIN user_spend  s ON s.user_id = request.user_id
LEFT JOIN user_clicks c ON c.user_id = request.user_id;
