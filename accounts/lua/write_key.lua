-- Writes what admit needs to know of an API key.
-- KEYS: 1 key hash, 2 revocations that Postgres has not confirmed (public id → note)
-- ARGV: 1 digest, 2 account epoch the key was read under, 3 version, 4 state, 5 requests per minute ('' follows the setting),
--       6 scopes joined by commas ('' all), 7 expiry in ms ('' never), 8 address ranges ('' any), 9 monthly cap ('' none),
--       10 family, 11 public id
-- Returns 'OK', or 'STALE' when the hash holds a later version or was read under a later epoch.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'version')
if known[1] and (tonumber(known[1]) > tonumber(ARGV[2]) or tonumber(known[2]) > tonumber(ARGV[3])) then
  return 'STALE'
end
-- Revoked is final, also while Postgres does not know it yet.
local state = redis.call('HEXISTS', KEYS[2], ARGV[11]) == 1 and 'revoked' or ARGV[4]
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'epoch', ARGV[2], 'version', ARGV[3], 'state', state, 'rpm', ARGV[5],
  'scopes', ARGV[6], 'expires', ARGV[7], 'ranges', ARGV[8], 'cap', ARGV[9], 'family', ARGV[10])
return 'OK'
