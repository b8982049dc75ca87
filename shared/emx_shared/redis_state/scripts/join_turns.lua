-- KEYS: line:QUEUE:TENANT, round:QUEUE, started:JOB, turn-number.  ARGV: job, tenant.
-- A job that waits keeps its place; a tenant that has waiting jobs has a turn.
redis.call('del', KEYS[3])
if not redis.call('zscore', KEYS[1], ARGV[1]) then
    redis.call('zadd', KEYS[1], redis.call('incr', KEYS[4]), ARGV[1])
end
if not redis.call('lpos', KEYS[2], ARGV[2]) then redis.call('rpush', KEYS[2], ARGV[2]) end
