package redis

import "github.com/redis/rueidis"

// What a lane keeps in Redis, all under its tag T and so in one slot:
//
//	T "r:" channel   hash: "r" the log's revision, "o" if presence is on, and for
//	                 each member "m" id: revision, node, "1" or "0" for data, JSON
//	T "n:" node      hash: how many members a node has, by channel
//	T "nodes"        set: the nodes that have members
//	T "l:" node      the node's lease, which expires
//
// A revision is the server's time in microseconds, or one more than the last. So a
// log that was empty, and left no key, goes on above where it was. Every change
// is published with the revision before it, 0 if the log was empty, and the number
// of members after it: who reads on can tell that nothing is missing.
//
// The scripts write in an order that a full server allows: it refuses commands that
// take memory only until a script has written something.
const library = `
local command, T, node = ARGV[1], ARGV[2], ARGV[3]

local function members(room)
	local n = redis.call('HLEN', room)
	if n == 0 then return 0 end
	return n - 1 - redis.call('HEXISTS', room, 'o')
end

local function stamp(room)
	local last = tonumber(redis.call('HGET', room, 'r') or '0')
	local t = redis.call('TIME')
	local now = t[1] * 1000000 + t[2]
	if now <= last then now = last + 1 end
	return string.format('%.0f', last), string.format('%.0f', now)
end

local function tell(channel, sign, last, now, id, body)
	local n = members(T .. 'r:' .. channel)
	redis.call(command, T .. channel, 'p' .. sign .. last .. ' ' .. now .. ' ' .. n .. ' ' .. id .. body)
end

local function count(who, channel, n)
	local left = redis.call('HINCRBY', T .. 'n:' .. who, channel, n)
	if left <= 0 then
		redis.call('HDEL', T .. 'n:' .. who, channel)
		if redis.call('EXISTS', T .. 'n:' .. who) == 0 then redis.call('SREM', T .. 'nodes', who) end
	elseif left == n then
		redis.call('SADD', T .. 'nodes', who)
	end
end

local function join(channel, id, body)
	local room = T .. 'r:' .. channel
	if redis.call('HEXISTS', room, 'm' .. id) == 1 then return end
	local last, now = stamp(room)
	redis.call('HSET', room, 'm' .. id, now .. ' ' .. node .. body, 'r', now)
	if string.sub(body, 2, 2) == '1' then redis.call('HSET', room, 'o', '1') end
	count(node, channel, 1)
	tell(channel, '+', last, now, id, body)
end

local function leave(channel, id)
	local room = T .. 'r:' .. channel
	local entry = redis.call('HGET', room, 'm' .. id)
	if not entry then return false end
	local last, now = stamp(room)
	redis.call('HDEL', room, 'm' .. id)
	if members(room) == 0 then redis.call('DEL', room) else redis.call('HSET', room, 'r', now) end
	count(string.match(entry, '^%d+ (%S+)'), channel, -1)
	tell(channel, '-', last, now, id, '')
	return true
end

local function read(channel)
	local all = redis.call('HGETALL', T .. 'r:' .. channel)
	if #all > 0 then return all end
	local _, now = stamp(T .. 'r:' .. channel)
	return {'r', now}
end

-- sweep takes a node's members out of all channels, at most so many; it reports
-- how many it took.
local function sweep(who, most)
	local n = 0
	for _, channel in ipairs(redis.call('HKEYS', T .. 'n:' .. who)) do
		local all = redis.call('HGETALL', T .. 'r:' .. channel)
		local mine = 0
		for i = 1, #all, 2 do
			if string.sub(all[i], 1, 1) == 'm' and string.match(all[i + 1], '^%d+ (%S+)') == who then
				if n == most then return n end
				leave(channel, string.sub(all[i], 2))
				n, mine = n + 1, mine + 1
			end
		end
		redis.call('HDEL', T .. 'n:' .. who, channel) -- whatever it says
	end
	redis.call('SREM', T .. 'nodes', who)
	return n
end
`

var (
	// joinScript logs a member: channel, id, body. It answers 0 if the node's lease
	// is over: then others may be sweeping its members.
	joinScript = script(`
if redis.call('EXISTS', T .. 'l:' .. node) == 0 then return 0 end
join(ARGV[4], ARGV[5], ARGV[6])
return 1
`)

	// readScript answers a channel's hash; of one that is not there, a revision that
	// is later than all that were.
	readScript = script(`
return read(ARGV[4])
`)

	// leaveScript: channel, id.
	leaveScript = script(`
leave(ARGV[4], ARGV[5])
return 1
`)

	// renewScript renews the node's lease, of so many milliseconds, and sweeps at
	// most so many members of nodes whose lease is over. It answers whether the
	// node's own was, and how many it swept.
	renewScript = script(`
local lapsed = 0
if redis.call('PEXPIRE', T .. 'l:' .. node, ARGV[4]) == 0 then
	redis.call('SET', T .. 'l:' .. node, '1', 'PX', ARGV[4])
	lapsed = 1
end
local swept, most = 0, tonumber(ARGV[5])
for _, who in ipairs(redis.call('SMEMBERS', T .. 'nodes')) do
	if who ~= node and swept < most and redis.call('EXISTS', T .. 'l:' .. who) == 0 then
		swept = swept + sweep(who, most - swept)
	end
end
return {lapsed, swept}
`)

	// settleScript makes the log of a channel say of this node's members what the
	// node says: channel, the lease, "1" if presence was on, then id and body of
	// each. It answers the hash.
	settleScript = script(`
local channel, room = ARGV[4], T .. 'r:' .. ARGV[4]
local own = {}
for i = 7, #ARGV, 2 do own[ARGV[i]] = true end
local all = redis.call('HGETALL', room)
for i = 1, #all, 2 do
	if string.sub(all[i], 1, 1) == 'm' and not own[string.sub(all[i], 2)] and string.match(all[i + 1], '^%d+ (%S+)') == node then
		leave(channel, string.sub(all[i], 2))
	end
end
for i = 7, #ARGV, 2 do join(channel, ARGV[i], ARGV[i + 1]) end
if ARGV[6] == '1' and redis.call('EXISTS', room) == 1 then redis.call('HSET', room, 'o', '1') end
return read(channel)
`)

	// farewellScript ends the node's lease and takes out its members, at most so many.
	farewellScript = script(`
redis.call('DEL', T .. 'l:' .. node)
return sweep(node, tonumber(ARGV[4]))
`)
)

func script(body string) *rueidis.Lua { return rueidis.NewLuaScript(library + body) }
