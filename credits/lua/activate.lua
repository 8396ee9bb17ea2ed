-- Makes a loaded account usable, after its epoch was read again in Postgres.
-- KEYS: 1 account hash
-- ARGV: 1 epoch
-- Returns OK, or STALE when another load came between (or has closed the account) or the data was lost again.
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending')
if account[1] ~= ARGV[1] or account[2] ~= generation() then
  return 'STALE'
end
if account[3] and account[3] ~= ARGV[1] then
  return 'STALE'
end
redis.call('HDEL', KEYS[1], 'pending', 'closed')
return 'OK'
