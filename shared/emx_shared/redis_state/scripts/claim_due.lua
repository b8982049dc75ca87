-- KEYS: due-deliveries.  ARGV: now, until when they are claimed, how many.  Returns what is due.
local due = redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, ARGV[3])
for _, delivery in ipairs(due) do redis.call('zadd', KEYS[1], ARGV[2], delivery) end
return due
