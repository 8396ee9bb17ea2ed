-- Moves a cursor from where its reader found it to the last event the reader has recorded.
-- KEYS: 1 cursor, 2 journal
-- ARGV: 1 cursor as it was read ('' at the beginning), 2 new cursor
-- Returns OK, or STALE when another consumer moved it or the stream is no longer the one that was read.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 'STALE'
end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
  return 'STALE'
end
redis.call('SET', KEYS[1], ARGV[2])
return 'OK'
