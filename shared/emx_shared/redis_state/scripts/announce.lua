-- KEYS: alive:KIND.  ARGV: name, seconds.  Notes until when a process counts as alive, by Redis's own time.
local now = tonumber(redis.call('time')[1])
redis.call('zadd', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
