-- Writes pieces, each if the stored one has absorbed exactly what the writer believes. Session: @SESSION@
-- KEYS     for each piece, the hash of its entity
-- ARGV     the field of heads; what becomes of the keys' time to live (milliseconds; 0: for ever; '': nothing); then for each piece:
--          absorbed offset that the writer believes ('' for no piece), number of arguments that follow (0 to refuse): its head, and
--          unless that is all, the number of removed fields, those, then field and bytes of each chunk
-- Returns for each 1, or the offset that the stored piece has absorbed as a string ('' for no piece).
local call = redis.call
local field, live = ARGV[1], ARGV[2]
local at = 3
local function write(key)
  local believed, head, n = ARGV[at], at + 2, tonumber(ARGV[at + 1])
  at = head + n
  -- A first piece that is all head is one command.
  if believed ~= '' or n ~= 1 or call('HSETNX', key, field, ARGV[head]) == 0 then
    local held = call('HGET', key, field)
    local holds = held and string.match(held, '^(-?%d+)\n') or ''
    if holds ~= believed or n == 0 then
      return holds
    end
    if n > 1 then
      local chunks = head + 2 + ARGV[head + 1]
      for i = head + 2, chunks - 1 do
        call('HDEL', key, ARGV[i])
      end
      -- Lua's stack holds some thousand arguments.
      for i = chunks, at - 1, 1000 do
        call('HSET', key, unpack(ARGV, i, math.min(i + 999, at - 1)))
      end
    end
    call('HSET', key, field, ARGV[head])
  end
  if live == '0' then
    call('PERSIST', key)
  elseif live ~= '' then
    call('PEXPIRE', key, live)
  end
  return 1
end
local outcomes = {}
for i, key in ipairs(KEYS) do
  outcomes[i] = write(key)
end
return outcomes
