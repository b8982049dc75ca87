-- KEYS: round:QUEUE.  ARGV: queue.  Returns the next job, and sends its tenant to the end of the round.
while true do
    local tenant = redis.call('lpop', KEYS[1])
    if not tenant then return nil end
    local line = 'line:' .. ARGV[1] .. ':' .. tenant
    local job = redis.call('zpopmin', line)[1]
    if redis.call('exists', line) == 1 then redis.call('rpush', KEYS[1], tenant) end
    if job then return job end
end
