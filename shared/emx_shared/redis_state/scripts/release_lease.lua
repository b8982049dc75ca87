-- KEYS: lease.  ARGV: token.  Deletes a lease unless somebody else holds it.
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
