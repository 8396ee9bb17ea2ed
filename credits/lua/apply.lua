-- Adds credits that Postgres has booked, or notes what was spent of its reserve; once and in order.
-- KEYS: 1 account hash
-- ARGV: 1 credit_seq of the command, 2 amount (0: a note), 3 reserve after it ('' unknown),
--       4 month's counter of the key family that spent the reserve ('' none), 5 what it spent
-- Returns {status, credits available without the reserve, last credit_seq applied}:
--   OK (now or before), GAP (an earlier one is missing), LOAD.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'bal', 'held', 'applied')
if not usable(account[1], account[2], account[3]) then
  return {'LOAD', '0', '0'}
end
local available = tonumber(account[4]) - tonumber(account[5])
local applied, credit_seq = tonumber(account[6]), tonumber(ARGV[1])
if credit_seq <= applied then
  return {'OK', int(available), int(applied)}
end
if credit_seq ~= applied + 1 then
  return {'GAP', int(available), int(applied)}
end
redis.call('HINCRBY', KEYS[1], 'bal', ARGV[2])
redis.call('HSET', KEYS[1], 'applied', ARGV[1])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'rsv', ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('HINCRBY', KEYS[1], ARGV[4], ARGV[5])
end
return {'OK', int(available + tonumber(ARGV[2])), ARGV[1]}
