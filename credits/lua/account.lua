-- Stands before every script that touches an account hash.
-- The hash counts only while it is complete (no `pending`) and was loaded from the data this server holds now:
-- master_replid changes at every start without data and at every promotion, where the run id may not.
local function generation()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

local function usable(epoch, gen, pending)
  return epoch and not pending and gen == generation()
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Lua prints large numbers in exponent form, which Redis refuses as integers.
local function int(number)
  return string.format('%.0f', number)
end

-- What the journal says of a debit or a request, under the field `event`; '-' stands for what it has not. One field,
-- because a stream takes as long over each field as over the whole of this.
local function event(account, epoch, seq, debit, total, operation, key, take)
  return table.concat({account, epoch, seq, int(debit), int(total), operation, key == '' and '-' or key, take}, ' ')
end
