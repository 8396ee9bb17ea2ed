-- Writes an account as Postgres knows it, unusable (`pending`) until activate.lua has said so.
-- KEYS: 1 account hash
-- ARGV: 1 epoch, 2 balance without the reserve, 3 drained seq, 4 credit_seq, 5 reserve, then pairs: a month's counter of a key family and its credits
-- Returns OK, or STALE when the hash is of this epoch or a later one.
local known = redis.call('HGET', KEYS[1], 'epoch')
if known and tonumber(known) >= tonumber(ARGV[1]) then
  return 'STALE'
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'bal', ARGV[2], 'held', '0', 'seq', ARGV[3], 'applied', ARGV[4], 'epoch', ARGV[1],
  'rsv', ARGV[5], 'gen', generation(), 'pending', ARGV[1], 'closed', int(now_ms()))
for place = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
end
return 'OK'
