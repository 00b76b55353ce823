-- repair removes keys that have another type than pushy's, because another program wrote
-- them. ARGV: 5 the key of the versions in use. It returns the number of removed keys.
local n = 0
local function check(key, want)
	local kind = redis.call('TYPE', key).ok
	if kind ~= 'none' and kind ~= want then
		redis.call('DEL', key)
		n = n + 1
	end
end
check(store, 'hash')
check(ARGV[5], 'zset')
for _, name in ipairs({'nodes', 'index', 'ledger', 'until'}) do check(T .. name, 'zset') end
check(T .. 'settings', 'hash')
check(T .. 'leases', 'hash')
check(T .. 'n:' .. node, 'set')
check(T .. 'e:' .. channel, 'string')
check(T .. 'k:' .. channel, 'list')
check(T .. 'm:' .. channel, 'hash')
return n
