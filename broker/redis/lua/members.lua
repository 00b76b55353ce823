-- What the scripts share that change members. A channel's members are one hash: "b"
-- begins the epoch of its revisions, "r" is the last, "c" the number of members,
-- "o" whether one had data since there were none, and "m" with an id each a member:
-- the revision of its join, when that was by its node's clock, the lengths of node,
-- owner and user, these, and the entry that has its data. While there are no members
-- the hash is kept for an hour. T "n:" with a node's name is the set of its members.
local function split(value)
	if not value or #value < 28 then return end
	local since, joined, n, o, u, at = struct.unpack('>ddI4I4I4', value)
	if not (whole(since) and whole(joined) and at + n + o + u <= #value) then return end
	return {
		since = since, joined = joined,
		node = string.sub(value, at, at + n - 1),
		owner = string.sub(value, at + n, at + n + o - 1),
		user = string.sub(value, at + n + o, at + n + o + u - 1),
		entry = string.sub(value, at + n + o + u),
	}
end

local function owned(channel, member) return #member .. ':' .. member .. channel end

-- remove takes a member out. The first write is one that a full server allows.
local function remove(channel, member, m, rev, count)
	local key = T .. 'm:' .. channel
	redis.call('SREM', T .. 'n:' .. m.node, owned(channel, member))
	redis.call('HDEL', key, 'm' .. member)
	if count > 1 then
		redis.call('HSET', key, 'r', rev, 'c', count - 1)
	else
		redis.call('HSET', key, 'r', rev, 'c', 0, 'o', 0)
		redis.call('PEXPIRE', key, 3600000)
	end
end
