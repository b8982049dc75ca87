-- KEYS: enqueued:JOB, started:JOB, begun:JOB.  ARGV: job, news channel, state.
-- A job that ended while it waited also leaves its tenant's line; the last one takes the tenant's turn along.
local enqueued = redis.call('get', KEYS[1])
if enqueued then
    local queue, tenant = string.match(enqueued, '%S+ (%S+) (%S+)')
    local line = 'line:' .. queue .. ':' .. tenant
    if redis.call('zrem', line, ARGV[1]) == 1 and redis.call('exists', line) == 0 then
        redis.call('lrem', 'round:' .. queue, 1, tenant)
    end
end
redis.call('del', KEYS[1], KEYS[2], KEYS[3])
redis.call('publish', ARGV[2], ARGV[1] .. ' ' .. ARGV[3])
