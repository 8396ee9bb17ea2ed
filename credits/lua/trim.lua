-- Forgets what both consumers have behind them; never by age.
-- KEYS: 1 journal, 2 ledger cursor, 3 usage cursor
-- Returns how many events were removed. The event at the lower cursor stays: it proves the stream to move_cursor.lua.
local ledger, usage = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
if not ledger or not usage then
  return 0
end
local function before(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then
    return tonumber(a_ms) < tonumber(b_ms)
  end
  return tonumber(a_n) < tonumber(b_n)
end
return redis.call('XTRIM', KEYS[1], 'MINID', before(ledger, usage) and ledger or usage)
