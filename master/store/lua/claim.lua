-- Take the job for an epoch (rule 9). KEYS: fence. ARGV: epoch, owner, "next" | "later".
-- later: another store has ruled since, so the documents are not whole; said here, because the claim hides it from the next reign.
-- Returns {"claimed" | "held", epoch, seq, owner} as they are afterwards.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'seq')
local epoch, owner, seq = held[1], held[2], held[3] or '0'
local wanted = tonumber(ARGV[1])
if epoch and (tonumber(epoch) > wanted or (tonumber(epoch) == wanted and owner ~= ARGV[2])) then
  return {'held', epoch, seq, owner}
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2], 'seq', seq)
if ARGV[3] == 'later' then
  redis.call('HDEL', KEYS[1], 'run')
end
return {'claimed', ARGV[1], seq, ARGV[2]}
