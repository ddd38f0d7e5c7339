-- Writes pieces, each if the stored one has absorbed exactly what the writer believes. Session: @SESSION@
-- KEYS     for each piece, the hash of its entity
-- ARGV     for each piece: field of its head, absorbed offset that the writer believes ('' for no piece), what becomes of
--          the key's time to live (milliseconds; 0: for ever; '': nothing), number of removed fields, those,
--          number of arguments that follow (0 to refuse), then field and bytes of each chunk, and of the head last
-- Returns for each 1, or the offset that the stored piece has absorbed as a string ('' for no piece).
local at = 1
local function write(key)
  local field, believed, live = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local removed = at + 4
  local sets = removed + ARGV[at + 3]
  local first = sets + 1
  at = first + ARGV[sets]
  -- A first piece that is all head is one command.
  if believed ~= '' or sets ~= removed or at - first ~= 2 or redis.call('HSETNX', key, field, ARGV[at - 1]) == 0 then
    local head = redis.call('HGET', key, field)
    local holds = head and string.match(head, '^(-?%d+)\n') or ''
    if holds ~= believed or at == first then
      return holds
    end
    for i = removed, sets - 1 do
      redis.call('HDEL', key, ARGV[i])
    end
    -- Lua's stack holds some thousand arguments.
    for i = first, at - 1, 1000 do
      redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, at - 1)))
    end
  end
  if live == '0' then
    redis.call('PERSIST', key)
  elseif live ~= '' then
    redis.call('PEXPIRE', key, live)
  end
  return 1
end
local outcomes = {}
for i, key in ipairs(KEYS) do
  outcomes[i] = write(key)
end
return outcomes
