-- KEYS: started:JOB, begun:JOB.  ARGV: token, job, news channel, seconds to live.  The time is Redis's own.
local now = redis.call('time')
redis.call('set', KEYS[1], ARGV[1], 'ex', ARGV[4])
redis.call('set', KEYS[2], string.format('%d.%06d', now[1], now[2]), 'ex', ARGV[4])
redis.call('publish', ARGV[3], ARGV[2] .. ' running')
