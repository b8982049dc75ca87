-- KEYS: alive:KIND.  Counts the processes whose last sign of life hasn't lapsed.
return redis.call('zcount', KEYS[1], '(' .. redis.call('time')[1], '+inf')
