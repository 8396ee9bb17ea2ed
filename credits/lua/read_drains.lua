-- Reads what the drains have done together, and how many are alive.
-- KEYS: 1 sums (hash), 2 drains (sorted set by when each was last heard of)
-- ARGV: 1 ms within which a drain that is alive was heard of
-- Returns {field and number in turn, drains alive}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return {redis.call('HGETALL', KEYS[1]), redis.call('ZCOUNT', KEYS[2], string.format('%.0f', now - tonumber(ARGV[1])), '+inf')}
