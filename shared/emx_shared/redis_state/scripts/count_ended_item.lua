-- KEYS: batch:BATCH.  ARGV: state.  Counts only where there is something to count on.
if redis.call('exists', KEYS[1]) == 1 then redis.call('hincrby', KEYS[1], ARGV[1], 1) end
