-- Closes an account for a load: until that load is switched on, every other script answers LOAD. So nothing is settled
-- between the drain of what the journal holds and the raise of the epoch, and a loader that dies half-way leaves an account
-- that the next call loads.
-- KEYS: 1 account hash
-- ARGV: 1 epoch in Postgres, 2 '1' to close an account that counts, too (a repair), 3 ms that another loader is left alone
-- Returns USABLE (nothing to do), LOADING (another loader is at it), AHEAD (of a later epoch: read it again), or CLOSED.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'closed')
local now = now_ms()
if usable(account[1], account[2], account[3]) then
  if tonumber(account[1]) > tonumber(ARGV[1]) then
    return 'AHEAD'
  end
  if account[1] == ARGV[1] and ARGV[2] ~= '1' then
    return 'USABLE'
  end
elseif account[4] then
  local since = now - tonumber(account[4])
  if since >= 0 and since < tonumber(ARGV[3]) then
    return 'LOADING'
  end
end
redis.call('HSET', KEYS[1], 'pending', '0', 'closed', int(now))
return 'CLOSED'
