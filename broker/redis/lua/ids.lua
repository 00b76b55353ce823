-- ids forgets the IDs of entries, and counts them down in the interval of append.lua in which
-- they were counted. ARGV: 5 and so on, the hashes of the IDs.
local slots = {}
for i = 5, #ARGV do
	local id = T .. 'i:' .. ARGV[i]
	local left = redis.call('PTTL', id)
	if redis.call('DEL', id) == 1 and left > 0 then
		local slot = math.floor((now + left - 1200000) / 300000)
		slots[slot] = (slots[slot] or 0) + 1
	end
end
for slot, n in pairs(slots) do
	local count = T .. 'ids:' .. slot
	local many, left = whole(redis.call('GET', count)), redis.call('PTTL', count)
	if many and many >= n and left > 0 then redis.call('SET', count, many - n, 'PX', left) end
end
return 1
