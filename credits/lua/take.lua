-- Takes credits back for a decrease, once and in the order of commands; never more than is available.
-- KEYS: 1 account hash, 2 journal
-- ARGV: 1 credit_seq of the command, 2 most to take, 3 decrease, 4 account number, 5 reserve after it ('' unknown)
-- Returns {status, credits taken, last credit_seq applied}: OK (now; '0' when it was applied before), GAP, LOAD.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'bal', 'held', 'seq', 'applied')
if not usable(account[1], account[2], account[3]) then
  return {'LOAD', '0', '0'}
end
local applied, credit_seq = tonumber(account[7]), tonumber(ARGV[1])
if credit_seq <= applied then
  return {'OK', '0', int(applied)}
end
if credit_seq ~= applied + 1 then
  return {'GAP', '0', int(applied)}
end
redis.call('HSET', KEYS[1], 'applied', ARGV[1])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'rsv', ARGV[5])
end
local taken = math.min(tonumber(ARGV[2]), tonumber(account[4]) - tonumber(account[5]))
if taken <= 0 then
  return {'OK', '0', ARGV[1]}
end
local seq = int(tonumber(account[6]) + 1)
redis.call('HSET', KEYS[1], 'bal', int(tonumber(account[4]) - taken), 'seq', seq)
redis.call('XADD', KEYS[2], '*', 'event', event(ARGV[4], account[1], seq, taken, taken, ARGV[3], '', ARGV[1]), 'usage', '')
return {'OK', int(taken), ARGV[1]}
