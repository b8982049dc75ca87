-- KEYS: emx:epoch, emx:listed.  ARGV: epoch.  Notes it unless Redis has lost its memory since that epoch began.
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[2], 1) end
