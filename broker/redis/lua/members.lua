-- The common part of the scripts that change members. The members of a channel are one hash:
-- "b" is the first part of the epoch of revisions, "r" the last revision, "c" the number of
-- members, and "o" is State.On. "m" and an id is a member: the revision of its join, the time
-- of its join by the clock of its node, the lengths of node, owner and user, then node, owner
-- and user, and the entry that has its data. When there are no members, the hash expires
-- after an hour. T "n:" and a node's id is the set of the node's members. The hash T "leases"
-- has the lengths of the nodes' leases in milliseconds.
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

local function leaseOf(who) return whole(redis.call('HGET', T .. 'leases', who)) or 0 end

local function owned(channel, member) return #member .. ':' .. member .. channel end

-- remove removes a member. Its first write is one that Redis permits when its memory is full.
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
