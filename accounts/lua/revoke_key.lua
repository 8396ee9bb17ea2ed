-- Refuses a key from now on, before Postgres has learned of it, and notes that Postgres has to.
-- KEYS: 1 key hash, 2 revocations that Postgres has not confirmed (public id → note)
-- ARGV: 1 public id, 2 note as JSON, 3 most notes
-- Returns 'OK', or 'FULL' when there is no room for another note: then nothing has changed.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then
    return 'FULL'
  end
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
-- A hash that is not there is not made up: whoever writes it looks into the notes.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'state', 'revoked')
end
return 'OK'
