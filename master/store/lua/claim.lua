-- Take the job for an epoch (rule 9). KEYS: fence. ARGV: epoch, owner.
-- Returns {"claimed" | "held", epoch, seq, owner} as they are afterwards.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'seq')
local epoch, owner, seq = held[1], held[2], held[3] or '0'
local wanted = tonumber(ARGV[1])
if epoch and (tonumber(epoch) > wanted or (tonumber(epoch) == wanted and owner ~= ARGV[2])) then
  return {'held', epoch, seq, owner}
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2], 'seq', seq)
return {'claimed', ARGV[1], seq, ARGV[2]}
