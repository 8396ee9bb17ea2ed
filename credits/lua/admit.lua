-- Decides one call: key, rate window, balance; then holds the credits it may cost.
-- KEYS: 1 account hash, 2 key hash, 3 rate window (list of call times, newest first), 4 result of the operation,
--       5 holds by deadline, 6 journal, 7 operation of the idempotency key
-- ARGV: 1 digest of the presented key, 2 amount to hold (0: identify only, no hold), 3 operation, 4 attempt,
--       5 hold in ms, 6 default requests per minute, 7 most events the journal may hold, 8 account number,
--       9 key id, 10 endpoint, 11 ms an idempotency key is remembered ('' when the call has none), 12 scope,
--       13 address of the caller as 32 hex digits, 14 month (YYYYMM)
-- Returns {status, a, b, limit, remaining, reset_ms}; limit '' means none. Credits available include the reserve.
--   OK: a = deadline in ms, b = credits available after the hold     SHORT: a = credits available, b = credits held
--   COVER: short, but the reserve would cover it: move it here and admit again; nothing happened, the call is not counted
--   RATE: reset_ms = wait     REPLAY: the operation was settled before; a = what it paid, b = credits available
--   CAP: as SHORT, a = what the key's family may still spend this month
--   LOAD | INVALID_KEY | REVOKED | SUSPENDED | EXPIRED | SCOPE | ADDRESS | IN_PROGRESS | MISMATCH | JOURNAL_FULL: nothing happened
local WINDOW_MS = 60000

local key = redis.call('HMGET', KEYS[2], 'digest', 'epoch', 'state', 'rpm', 'scopes', 'expires', 'ranges', 'cap', 'family')
-- What the key's family has spent and holds this month; counted for every key, so that a cap may be set at any time.
local month = 'cap:' .. (key[9] or '') .. ':' .. ARGV[14]
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'bal', 'held', 'rsv', month, 'h:' .. ARGV[3])
if not usable(account[1], account[2], account[3]) then
  return {'LOAD'}
end
-- A hash without a family was written by an older release.
if not key[1] or key[2] ~= account[1] or not key[9] then
  return {'LOAD'}
end
if key[1] ~= ARGV[1] then
  return {'INVALID_KEY'}
end
if key[3] ~= 'active' then
  return {string.upper(key[3])}
end

local now = now_ms()
if key[6] ~= '' and tonumber(key[6]) <= now then
  return {'EXPIRED'}
end
if key[5] ~= '' and not string.find(',' .. key[5] .. ',', ',' .. ARGV[12] .. ',', 1, true) then
  return {'SCOPE'}
end
if key[7] ~= '' then
  local allowed = false
  for low, high in string.gmatch(key[7], '(%x+)-(%x+)') do
    allowed = allowed or (ARGV[13] >= low and ARGV[13] <= high)
  end
  if not allowed then
    return {'ADDRESS'}
  end
end
local limit = tonumber(key[4]) or tonumber(ARGV[6])
local free = tonumber(account[4]) - tonumber(account[5])
local available = free + (tonumber(account[6]) or 0)
local amount = tonumber(ARGV[2])

-- The rate window as {limit, calls left, ms until the oldest call leaves}; calls past the window are forgotten here.
local function window()
  if limit == 0 then
    return '', '', 0
  end
  local oldest = redis.call('LINDEX', KEYS[3], -1)
  while oldest and tonumber(oldest) <= now - WINDOW_MS do
    redis.call('RPOP', KEYS[3])
    oldest = redis.call('LINDEX', KEYS[3], -1)
  end
  local reset = oldest and math.min(WINDOW_MS, tonumber(oldest) + WINDOW_MS - now) or WINDOW_MS
  return int(limit), math.max(0, limit - redis.call('LLEN', KEYS[3])), reset
end

local paid_before
if amount > 0 then
  -- The same idempotency key with another body is another operation.
  if ARGV[11] ~= '' then
    local known = redis.call('GET', KEYS[7])
    if known and known ~= ARGV[3] then
      return {'MISMATCH'}
    end
  end
  local hold = account[8]
  if hold then
    local deadline, attempt = string.match(hold, '^%S+ (%S+) (%S+)')
    if attempt ~= ARGV[4] then
      return {'IN_PROGRESS'}
    end
    -- The same attempt again, its first reply lost: the same answer, and the window is not counted twice.
    return {'OK', deadline, int(available), window()}
  end
  local result = redis.call('GET', KEYS[4])
  if result then
    -- What was settled is not charged again. A released attempt may be followed by another one: had it paid for a part (a
    -- download that broke off), the booking rule charges the operation its greatest total and returns the rest.
    local known_attempt, known_total, state = string.match(result, '^(%S+) (%S+) (%S+)')
    if state == 'settled' then
      paid_before = known_total
    elseif known_attempt == ARGV[4] then
      return {'IN_PROGRESS'}
    end
  end
  if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[7]) then
    return {'JOURNAL_FULL'}
  end
end

local spent, left_of_cap = tonumber(account[7]) or 0, amount
if key[8] ~= '' then
  left_of_cap = tonumber(key[8]) - spent
end

local shown, left, reset = window()
if not paid_before and free < amount and available >= amount and left_of_cap >= amount and (limit == 0 or left > 0) then
  return {'COVER'}
end
if limit > 0 then
  if left <= 0 then
    return {'RATE', '', '', shown, 0, reset}
  end
  redis.call('LPUSH', KEYS[3], int(now))
  redis.call('PEXPIRE', KEYS[3], WINDOW_MS)
  left = left - 1
end
if amount == 0 then
  return {'OK', 0, int(available), shown, left, reset}
end
if paid_before then
  return {'REPLAY', paid_before, int(available), shown, left, reset}
end
if available < amount then
  return {'SHORT', int(available), account[5], shown, left, reset}
end
if left_of_cap < amount then
  return {'CAP', int(math.max(0, left_of_cap)), '0', shown, left, reset}
end
local deadline = int(now + tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'held', int(tonumber(account[5]) + amount), month, int(spent + amount), 'h:' .. ARGV[3],
  table.concat({ARGV[2], deadline, ARGV[4], ARGV[9], '0', ARGV[10], month}, ' '))
redis.call('ZADD', KEYS[5], deadline, ARGV[8] .. ':' .. ARGV[3])
if ARGV[11] ~= '' then
  redis.call('SET', KEYS[7], ARGV[3], 'PX', ARGV[11])
end
return {'OK', deadline, int(available - amount), shown, left, reset}
