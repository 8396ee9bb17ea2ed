-- Reads an account at one moment.
-- KEYS: 1 account hash
-- Returns {usable ('1' or '0'), balance, held, seq, applied, epoch, reserve as far as it was told}; '' for what is not there.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'bal', 'held', 'seq', 'applied', 'rsv')
local function text(value)
  return value or ''
end
return {usable(account[1], account[2], account[3]) and '1' or '0',
  text(account[4]), text(account[5]), text(account[6]), text(account[7]), text(account[1]), text(account[8])}
