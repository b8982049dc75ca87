-- KEYS: pending:QUEUE:TENANT, turns:QUEUE, started:JOB.  ARGV: job, tenant.
-- The first waiting job of a tenant gives the tenant a turn.
redis.call('del', KEYS[3])
if redis.call('rpush', KEYS[1], ARGV[1]) == 1 then redis.call('rpush', KEYS[2], ARGV[2]) end
