-- Reads what stands in a journal after a cursor. The cursor is read in the same step: it lives and dies with its stream.
-- KEYS: 1 cursor, 2 journal
-- ARGV: 1 most events to return
-- Returns {cursor, events}; cursor '' at the beginning.
local cursor = redis.call('GET', KEYS[1]) or ''
local start = cursor == '' and '-' or '(' .. cursor
return {cursor, redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', ARGV[1])}
