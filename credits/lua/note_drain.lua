-- Adds what one drain has done to the sums of all, and that it is alive.
-- KEYS: 1 sums (hash), 2 drains (sorted set by when each was last heard of)
-- ARGV: 1 drain, 2 after how many ms of silence a drain is forgotten, then field and number in turn
-- Returns OK.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
for i = 3, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 'OK'
