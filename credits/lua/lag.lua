-- What waits in one partition. The clock is this server's own, as the stream ids are.
-- KEYS: 1 journal, 2 ledger cursor, 3 usage cursor, 4 holds
-- Returns {age of the oldest event the ledger has not reached in ms or -1, the same for usage, journal length, holds, holds due}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function age(cursor)
  local start = cursor and '(' .. cursor or '-'
  local entry = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 1)[1]
  if not entry then
    return -1
  end
  return math.max(0, now - tonumber(string.match(entry[1], '^(%d+)')))
end
return {age(redis.call('GET', KEYS[2])), age(redis.call('GET', KEYS[3])), redis.call('XLEN', KEYS[1]),
  redis.call('ZCARD', KEYS[4]), redis.call('ZCOUNT', KEYS[4], '-inf', now)}
