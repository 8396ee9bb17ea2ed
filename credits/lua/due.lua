-- Reads the holds of a partition whose deadline has passed, by the clock that set it.
-- KEYS: 1 holds by deadline
-- ARGV: 1 most holds to return
-- Returns their members, '<account number>:<operation>' each, oldest first.
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
