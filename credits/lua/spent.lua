-- Reads what a family of keys has spent and holds in a month.
-- KEYS: 1 account hash
-- ARGV: 1 the family's counter of that month
-- Returns the credits; '' when the account is to be loaded first.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', ARGV[1])
if not usable(account[1], account[2], account[3]) then
  return ''
end
return account[4] or '0'
