-- KEYS: round:QUEUE, the queue.  ARGV: queue.  Returns how many turns and messages wait, and one of the jobs.
local turns, job = 0, ''
for _, tenant in ipairs(redis.call('lrange', KEYS[1], 0, -1)) do
    local line = 'line:' .. ARGV[1] .. ':' .. tenant
    turns = turns + redis.call('zcard', line)
    job = redis.call('zrange', line, 0, 0)[1] or job
end
return {turns, redis.call('llen', KEYS[2]), job}
