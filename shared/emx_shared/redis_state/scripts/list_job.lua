-- KEYS: jobs:TENANT, the tenant's open jobs, tenants, the tenant's ended jobs by state.  ARGV: job, time, tenant.
redis.call('zadd', KEYS[1], ARGV[2], ARGV[1])
redis.call('sadd', KEYS[3], ARGV[3])
for place = 4, #KEYS do
    if redis.call('zscore', KEYS[place], ARGV[1]) then return end
end
redis.call('zadd', KEYS[2], ARGV[2], ARGV[1])
