SELECT user_id FROM orders;
