-- KEYS: line:QUEUE:TENANT, round:QUEUE.  ARGV: job, queue.
-- Tenants take turns, so each other tenant has at most as many jobs ahead as this one has.
local place = redis.call('zrank', KEYS[1], ARGV[1])
if not place then return nil end
local ahead = place
for _, tenant in ipairs(redis.call('lrange', KEYS[2], 0, -1)) do
    local line = 'line:' .. ARGV[2] .. ':' .. tenant
    if line ~= KEYS[1] then ahead = ahead + math.min(redis.call('zcard', line), place) end
end
return ahead
