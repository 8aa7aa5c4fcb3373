-- Apply one batch of document changes under the fence (rule 8). KEYS: fence, documents.
-- ARGV: epoch, expected seq, token, run id, "merge" | "replace", number of puts, (key, text)..., deleted key...
-- Returns {"applied" | "repeated" | "fenced" | "lost", epoch, seq, owner} as they are in the store.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'owner', 'token')
local epoch, seq, owner, token = held[1] or '0', held[2] or '0', held[3] or '', held[4] or ''
if tonumber(epoch) > tonumber(ARGV[1]) then
  return {'fenced', epoch, seq, owner}
end
if epoch ~= ARGV[1] then
  return {'lost', epoch, seq, owner}
end
if token == ARGV[3] then
  -- Written again although nothing changes: WAITAOF waits only for writes of the connection that asks.
  redis.call('HSET', KEYS[1], 'token', token)
  return {'repeated', epoch, seq, owner}
end
if seq ~= ARGV[2] then
  return {'lost', epoch, seq, owner}
end
if ARGV[5] == 'replace' then
  redis.call('DEL', KEYS[2])
end
-- unpack() fills the Lua stack, which holds 8,000 values.
local chunk = 2000
local last_put = 6 + 2 * tonumber(ARGV[6])
for first = 7, last_put, chunk do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + chunk - 1, last_put)))
end
for first = last_put + 1, #ARGV, chunk do
  redis.call('HDEL', KEYS[2], unpack(ARGV, first, math.min(first + chunk - 1, #ARGV)))
end
local now = string.format('%d', tonumber(seq) + 1)
redis.call('HSET', KEYS[1], 'seq', now, 'token', ARGV[3], 'run', ARGV[4])
return {'applied', epoch, now, owner}
