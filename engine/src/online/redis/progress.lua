-- Remembers progress. Session: @SESSION@
-- KEYS[1]  the hash of a view's progress
-- ARGV     partition, what the writer believes to be there ('' for nothing), next offset
-- Returns 1, or what is stored as a string ('' for nothing).
local holds = redis.call('HGET', KEYS[1], ARGV[1])
-- Compared as text: Lua's numbers are doubles, which don't tell large offsets apart.
local function less(a, b)
  local minus_a, minus_b = string.sub(a, 1, 1) == '-', string.sub(b, 1, 1) == '-'
  if minus_a ~= minus_b then
    return minus_a
  end
  if minus_a then
    a, b = string.sub(b, 2), string.sub(a, 2)
  end
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end
if (holds or '') ~= ARGV[2] and (not holds or ARGV[2] == '' or less(holds, ARGV[2])) then
  return holds or ''
end
if holds and less(ARGV[3], holds) then
  return holds
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
