-- renew renews the node's lease, and removes the members of nodes whose lease has expired.
-- ARGV: 5 the length of the lease in milliseconds, which a lower one does not replace, 6 the
-- maximum number of members to remove, 7 a new epoch, 8 the key of the versions in use, 9 this
-- node's version, 10 its settings or ''. It returns whether the node's own lease had expired,
-- the number of removed members, the store's "life" and "run", and the nodes' settings.
local lease, most = tonumber(ARGV[5]), tonumber(ARGV[6])
for _, version in ipairs(redis.call('ZRANGEBYSCORE', ARGV[8], '(' .. now, '+inf')) do
	if version ~= ARGV[9] then return redis.error_reply('OTHERVERSION ' .. version) end
end
register(ARGV[7], false)
local s = redis.call('HMGET', store, 'life', 'run')

-- When its memory is full, Redis refuses a script's writes only until the script has written
-- something. It permits HDEL.
redis.call('HDEL', store, '')
local score = redis.call('ZSCORE', T .. 'nodes', node)
local over = not score or score == '0'
local known = leaseOf(node)
if lease > known then redis.call('HSET', T .. 'leases', node, lease) end
lease = math.max(lease, known)
redis.call('ZADD', T .. 'nodes', now + lease, node)
redis.call('ZADD', ARGV[8], now + lease, ARGV[9])
local settings = {}
if over and ARGV[10] ~= '' then
	local all = redis.call('HGETALL', T .. 'settings')
	for i = 1, #all, 2 do
		local score = tonumber(redis.call('ZSCORE', T .. 'nodes', all[i]) or '0')
		if score > now then settings[#settings + 1], settings[#settings + 2] = all[i], all[i + 1] end
	end
	redis.call('HSET', T .. 'settings', node, ARGV[10])
end

-- expire removes a member of a node. It ignores data that other programs have written.
local function expire(who, member, channel)
	local key = T .. 'm:' .. channel
	local h = redis.pcall('HMGET', key, 'b', 'r', 'c', 'm' .. member)
	if h.err then return end
	local m, rev, count = split(h[4]), whole(h[2]), whole(h[3])
	if not (m and m.node == who and rev and count and h[1] and #h[1] <= 20) then return end
	remove(channel, member, m, rev + 1, count)
	local epoch = h[1] .. '-' .. s[2]
	redis.call(command, T .. 'c:' .. channel,
		'x' .. struct.pack('>ddddB', rev + 1, now, 0, #member, #epoch) .. epoch .. member .. m.owner)
end

local taken = 0
for _, who in ipairs(redis.call('ZRANGEBYSCORE', T .. 'nodes', '-inf', now, 'LIMIT', 0, 10)) do
	while taken < most do
		redis.call('ZADD', T .. 'nodes', 0, who) -- its lease is over, even if it is back before the end of this
		local all = redis.pcall('SPOP', T .. 'n:' .. who, math.min(100, most - taken))
		if all.err or #all == 0 then
			redis.call('DEL', T .. 'n:' .. who)
			redis.call('ZREM', T .. 'nodes', who)
			redis.call('HDEL', T .. 'settings', who)
			redis.call('HDEL', T .. 'leases', who)
			break
		end
		for _, name in ipairs(all) do
			local length, at = string.match(name, '^(%d+):()')
			length = whole(length)
			if length then expire(who, string.sub(name, at, at + length - 1), string.sub(name, at + length)) end
			taken = taken + 1
		end
	end
end
return {over and 1 or 0, taken, s[1], s[2], settings}
