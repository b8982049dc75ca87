-- KEYS: lease.  ARGV: token, milliseconds.  Renews a lease, or takes it anew where Redis forgot it.
local holder = redis.call('get', KEYS[1])
if holder == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) return 1 end
if not holder then redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2]) return 1 end
return 0
