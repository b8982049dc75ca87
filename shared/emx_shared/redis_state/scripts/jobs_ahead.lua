-- KEYS: pending:QUEUE:TENANT, turns:QUEUE.  ARGV: job, queue.
-- Tenants take turns, so each other tenant has at most as many jobs ahead as this one has.
local place = redis.call('lpos', KEYS[1], ARGV[1])
if not place then return nil end
local ahead = place
for _, tenant in ipairs(redis.call('lrange', KEYS[2], 0, -1)) do
    local waiting = 'pending:' .. ARGV[2] .. ':' .. tenant
    if waiting ~= KEYS[1] then ahead = ahead + math.min(redis.call('llen', waiting), place) end
end
return ahead
