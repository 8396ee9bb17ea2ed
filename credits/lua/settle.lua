-- Charges an operation up to a cumulative total, or releases what it still holds.
-- KEYS: 1 account hash, 2 result of the operation, 3 holds by deadline, 4 journal, 5 key hash (read for its family)
-- ARGV: 1 operation, 2 attempt ('' in a sweep: whichever holds), 3 cumulative total, or 'release', 4 '1' when final,
--       5 amount of the hold, 6 its deadline in ms, 7 hold in ms, 8 ms a settled result is kept, 9 key id,
--       10 account number, 11 usage as JSON ('' when this settle reports none), 12 endpoint, 13 month (YYYYMM)
-- Returns {status, total charged so far, credits available with the reserve, deadline in ms}:
--   OK: charged, now or by an earlier delivery of the same settle     RELEASED: too late, nothing may be delivered
--   OVER: the total is above the hold     SHORT: the hold was lost and the balance no longer covers it
--   COVER: as SHORT, but the reserve would cover it: move it here and settle again
--   LOAD: the account is to be loaded first     NOT_DUE: a sweep came before the deadline
local account = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'pending', 'bal', 'held', 'seq', 'rsv', 'h:' .. ARGV[1])
if not usable(account[1], account[2], account[3]) then
  return {'LOAD', '0', '0'}
end
local operation, attempt, final = ARGV[1], ARGV[2], ARGV[4] == '1'
local releasing, sweeping = ARGV[3] == 'release', ARGV[2] == ''
local balance, held, reserve = tonumber(account[4]), tonumber(account[5]), tonumber(account[7]) or 0
local member = ARGV[10] .. ':' .. operation
local now = now_ms()
local usage = ARGV[11]

local amount, deadline, paid, key_id, endpoint, month
local hold = account[8]
if hold then
  local held_amount, held_deadline, held_attempt, held_key, held_paid, held_endpoint, held_month =
    string.match(hold, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S*) (%S+)')
  if sweeping then
    if tonumber(held_deadline) > now then
      return {'NOT_DUE', held_paid, int(balance - held + reserve)}
    end
    attempt = held_attempt
    usage = cjson.encode({status = 0, endpoint = held_endpoint, abandoned = true})
  elseif held_attempt ~= attempt then
    return {'RELEASED', '0', int(balance - held + reserve)}
  end
  amount, deadline, paid, key_id, endpoint, month =
    tonumber(held_amount), tonumber(held_deadline), tonumber(held_paid), held_key, held_endpoint, held_month
else
  redis.call('ZREM', KEYS[3], member)
  if sweeping then
    return {'OK', '0', int(balance - held + reserve)}
  end
  local result = redis.call('GET', KEYS[2])
  if result then
    local known_attempt, known_total, state = string.match(result, '^(%S+) (%S+) (%S+)')
    local same = known_attempt == attempt
    local settled = same and state == 'settled' and not releasing and tonumber(ARGV[3]) <= tonumber(known_total)
    if settled or (same and releasing) then
      return {'OK', known_total, int(balance - held + reserve)}
    end
    return {'RELEASED', known_total, int(balance - held + reserve)}
  end
  if now > tonumber(ARGV[6]) then
    return {'RELEASED', '0', int(balance - held + reserve)}
  end
  -- Neither hold nor result before the deadline: Redis lost them. Hold again and go on in the same step.
  amount, deadline, paid, key_id, endpoint = tonumber(ARGV[5]), tonumber(ARGV[6]), 0, ARGV[9], ARGV[12]
  if not releasing and tonumber(ARGV[3]) > amount then
    return {'OVER', '0', int(balance - held + reserve)}
  end
  local needed = releasing and 0 or (final and tonumber(ARGV[3]) or amount)
  if balance - held < needed then
    if balance - held + reserve >= needed then
      return {'COVER', '0', int(balance - held + reserve)}
    end
    return {'SHORT', '0', int(balance - held + reserve)}
  end
  held = held + amount
  month = 'cap:' .. (redis.call('HGET', KEYS[5], 'family') or '') .. ':' .. ARGV[13]
  redis.call('HINCRBY', KEYS[1], month, int(amount))
end

local total = releasing and paid or tonumber(ARGV[3])
if total > amount then
  return {'OVER', int(paid), int(balance - held + reserve)}
end
local debit = math.max(0, total - paid)
total = math.max(total, paid)
balance = balance - debit
if final then
  held = held - (amount - paid)
  if total ~= amount then
    redis.call('HINCRBY', KEYS[1], month, int(total - amount))
  end
  redis.call('HDEL', KEYS[1], 'h:' .. operation)
  redis.call('ZREM', KEYS[3], member)
  -- A released attempt is remembered until no late settle of it can come any more, a settled one for replays.
  local kept = releasing and math.max(1, deadline - now) or tonumber(ARGV[8])
  redis.call('SET', KEYS[2], table.concat({attempt, int(total), releasing and 'released' or 'settled'}, ' '),
    'PX', int(kept))
else
  held = held - debit
  deadline = now + tonumber(ARGV[7])
  redis.call('HSET', KEYS[1], 'h:' .. operation,
    table.concat({int(amount), int(deadline), attempt, key_id, int(total), endpoint, month}, ' '))
  redis.call('ZADD', KEYS[3], int(deadline), member)
end
local seq = debit > 0 and int(tonumber(account[6]) + 1) or account[6]
redis.call('HSET', KEYS[1], 'bal', int(balance), 'held', int(held), 'seq', seq)
if debit > 0 or usage ~= '' then
  redis.call('XADD', KEYS[4], '*', 'event',
    event(ARGV[10], account[1], debit > 0 and seq or '-', debit, total, operation, key_id, '-'), 'usage', usage)
end
return {'OK', int(total), int(balance - held + reserve), int(deadline)}
