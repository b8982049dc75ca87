-- KEYS: enqueued:JOB.  ARGV: queue, tenant, seconds to live.  The time is Redis's own, to the millisecond.
local now = redis.call('time')
local at = string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
redis.call('set', KEYS[1], at .. ' ' .. ARGV[1] .. ' ' .. ARGV[2], 'ex', ARGV[3])
