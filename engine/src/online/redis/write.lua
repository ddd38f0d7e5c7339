-- Writes one piece, if the stored one has absorbed exactly what the writer believes. Session: @SESSION@
-- KEYS[1]  the key's hash
-- ARGV     field of the piece, absorbed offset that the writer believes ('' for no piece), new head ('' to refuse),
--          milliseconds to live (0 for ever), number of removed fields, those, then field and bytes of each chunk
-- Returns 1, or the offset that the stored piece has absorbed as a string ('' for no piece).
local head = redis.call('HGET', KEYS[1], ARGV[1])
local holds = head and string.match(head, '^(-?%d+)\n') or ''
if holds ~= ARGV[2] or ARGV[3] == '' then
  return holds
end
local chunks = 6 + tonumber(ARGV[5])
for i = 6, chunks - 1 do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = chunks, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  redis.call('PERSIST', KEYS[1])
end
return 1
