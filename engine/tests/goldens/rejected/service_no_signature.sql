CREATE FEATURE SERVICE bad AS SELECT request.user_id FROM request;
