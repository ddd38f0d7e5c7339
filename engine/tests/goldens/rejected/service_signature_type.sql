CREATE FEATURE SERVICE bad (user_id BIGINTT) AS SELECT request.user_id FROM request;
