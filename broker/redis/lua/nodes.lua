-- nodes returns the nodes that are not closed and whose lease has not expired.
local open = {}
for _, who in ipairs(redis.call('ZRANGEBYSCORE', T .. 'nodes', '(' .. now, '+inf')) do
	if redis.call('EXISTS', T .. 'closed:' .. who) == 0 then open[#open + 1] = who end
end
return open
