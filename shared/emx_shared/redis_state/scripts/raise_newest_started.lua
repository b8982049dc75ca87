-- KEYS: newest:QUEUE:TENANT.  ARGV: time of enqueuing.  Keeps the latest.
local newest = tonumber(redis.call('get', KEYS[1]) or '0')
if tonumber(ARGV[1]) > newest then redis.call('set', KEYS[1], ARGV[1]) end
