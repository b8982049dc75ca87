-- KEYS: turns:QUEUE.  ARGV: queue.  Returns the next job, and sends its tenant to the end of the round.
local tenant = redis.call('lpop', KEYS[1])
if not tenant then return nil end
local waiting = 'pending:' .. ARGV[1] .. ':' .. tenant
local job = redis.call('lpop', waiting)
if redis.call('exists', waiting) == 1 then redis.call('rpush', KEYS[1], tenant) end
return job
