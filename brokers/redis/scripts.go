package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"
)

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

-- Others may write fields that mean nothing: where few are left each is looked at, so
-- that a log gets empty.
local function members(room)
	local n = redis.call('HLEN', room)
	if n == 0 then return 0 end
	if n > 16 then return n - 1 - redis.call('HEXISTS', room, 'o') end
	n = 0
	for _, name in ipairs(redis.call('HKEYS', room)) do
		if string.sub(name, 1, 1) == 'm' then n = n + 1 end
	end
	return n
end

-- sound makes a revision that others may have written a number to count on from.
local function sound(text)
	local r = tonumber(text or '0')
	if r and r >= 0 and r < 4503599627370496 then return math.floor(r) end
	return 0
end

-- hash deletes what others have written in a room's place: nothing in it is pushy's.
local function hash(room)
	if type(redis.pcall('HLEN', room)) ~= 'number' then redis.call('DEL', room) end
end

local function owner(entry) return string.match(entry, '^%d+ (%S+)') end

local function stamp(room)
	local last = sound(redis.call('HGET', room, 'r'))
	local t = redis.call('TIME')
	local now = t[1] * 1000000 + t[2]
	if now <= last then now = last + 1 end
	return string.format('%.0f', last), string.format('%.0f', now)
end

local function tell(channel, sign, last, now, id, body)
	local n = members(T .. 'r:' .. channel)
	redis.call(command, T .. channel, 'p' .. sign .. last .. ' ' .. now .. ' ' .. n .. ' ' .. id .. body)
end

local function remember(who)
	if type(redis.pcall('SADD', T .. 'nodes', who)) ~= 'number' then -- others have written there
		redis.call('DEL', T .. 'nodes')
		redis.call('SADD', T .. 'nodes', who)
	end
end

local function count(who, channel, n)
	local left = redis.pcall('HINCRBY', T .. 'n:' .. who, channel, n)
	if type(left) ~= 'number' then -- others have written there
		redis.call('DEL', T .. 'n:' .. who)
		redis.call('HSET', T .. 'n:' .. who, channel, '1')
		return remember(who)
	end
	if left <= 0 then
		redis.call('HDEL', T .. 'n:' .. who, channel)
		if redis.call('EXISTS', T .. 'n:' .. who) == 0 then redis.call('SREM', T .. 'nodes', who) end
	elseif left == n then
		remember(who)
	end
end

local function join(channel, id, body)
	local room = T .. 'r:' .. channel
	hash(room)
	if redis.call('HEXISTS', room, 'm' .. id) == 1 then return end
	local last, now = stamp(room)
	redis.call('HSET', room, 'm' .. id, now .. ' ' .. node .. body, 'r', now)
	if string.sub(body, 2, 2) == '1' then redis.call('HSET', room, 'o', '1') end
	count(node, channel, 1)
	tell(channel, '+', last, now, id, body)
end

local function leave(channel, id)
	local room = T .. 'r:' .. channel
	hash(room)
	local entry = redis.call('HGET', room, 'm' .. id)
	if not entry then return false end
	local last, now = stamp(room)
	redis.call('HDEL', room, 'm' .. id)
	if members(room) == 0 then redis.call('DEL', room) else redis.call('HSET', room, 'r', now) end
	count(owner(entry) or node, channel, -1)
	tell(channel, '-', last, now, id, '')
	return true
end

local function read(channel)
	hash(T .. 'r:' .. channel)
	local all = redis.call('HGETALL', T .. 'r:' .. channel)
	for i = 1, #all, 2 do
		if all[i] == 'r' and sound(all[i + 1]) > 0 then return all end
	end
	if #all > 0 then -- the next change gives it a revision
		table.insert(all, 'r')
		table.insert(all, '0')
		return all
	end
	local _, now = stamp(T .. 'r:' .. channel)
	return {'r', now}
end

-- sweep takes a node's members out of all channels, at most so many; it reports
-- how many it took.
local function sweep(who, most)
	local n = 0
	-- A key of another type, which others have written, must not keep the rest.
	local channels = redis.pcall('HKEYS', T .. 'n:' .. who)
	if channels.err then
		redis.call('DEL', T .. 'n:' .. who)
		channels = {}
	end
	for _, channel in ipairs(channels) do
		local all = redis.pcall('HGETALL', T .. 'r:' .. channel)
		if all.err then all = {} end
		for i = 1, #all, 2 do
			if string.sub(all[i], 1, 1) == 'm' and owner(all[i + 1]) == who then
				if n == most then return n end
				leave(channel, string.sub(all[i], 2))
				n = n + 1
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
	joinScript = newScript("join", `
if redis.call('EXISTS', T .. 'l:' .. node) == 0 then return 0 end
join(ARGV[4], ARGV[5], ARGV[6])
return 1
`)

	// readScript answers a channel's hash; of one that is not there, a revision that
	// is later than all that were.
	readScript = newScript("read", `
return read(ARGV[4])
`)

	// leaveScript: channel, id.
	leaveScript = newScript("leave", `
leave(ARGV[4], ARGV[5])
return 1
`)

	// renewScript renews the node's lease, of so many milliseconds, and sweeps at
	// most so many members of nodes whose lease is over. It answers whether the
	// node's own was, and how many it swept.
	renewScript = newScript("renew", `
local lapsed = 0
if redis.call('PEXPIRE', T .. 'l:' .. node, ARGV[4]) == 0 then
	redis.call('SET', T .. 'l:' .. node, '1', 'PX', ARGV[4])
	lapsed = 1
end
if redis.call('EXISTS', T .. 'n:' .. node) == 1 then remember(node) end -- others may have deleted it
local swept, most = 0, tonumber(ARGV[5])
local nodes = redis.pcall('SMEMBERS', T .. 'nodes')
if nodes.err then -- others have written there; each node that has members is in it again soon
	redis.call('DEL', T .. 'nodes')
	nodes = {}
end
for _, who in ipairs(nodes) do
	if who ~= node and swept < most and redis.call('EXISTS', T .. 'l:' .. who) == 0 then
		swept = swept + sweep(who, most - swept)
	end
end
return {lapsed, swept}
`)

	// settleScript makes the log of a channel say of this node's members what the
	// node says: channel, the lease, "1" if presence was on, then id and body of
	// each. It answers the hash.
	settleScript = newScript("settle", `
local channel, room = ARGV[4], T .. 'r:' .. ARGV[4]
hash(room)
local own = {}
for i = 7, #ARGV, 2 do own[ARGV[i]] = true end
local all = redis.call('HGETALL', room)
for i = 1, #all, 2 do
	if string.sub(all[i], 1, 1) == 'm' and not own[string.sub(all[i], 2)] and owner(all[i + 1]) == node then
		leave(channel, string.sub(all[i], 2))
	end
end
for i = 7, #ARGV, 2 do join(channel, ARGV[i], ARGV[i + 1]) end
if ARGV[6] == '1' and redis.call('EXISTS', room) == 1 then redis.call('HSET', room, 'o', '1') end
return read(channel)
`)

	// tryScript runs every command of the scripts on keys that nobody reads, and a
	// PUBLISH that nobody gets. It answers those that were refused, each with why.
	tryScript = newScript("try", `
local refused = {}
local key, other = T .. 'try:' .. node, T .. 'try2:' .. node
local function try(...)
	local answer = redis.pcall(...)
	if type(answer) == 'table' and answer.err then
		table.insert(refused, (select(1, ...)))
		table.insert(refused, answer.err)
	end
end
try('TIME')
try('HSET', key, 'm', '1', 'r', '1')
try('HGET', key, 'm')
try('HEXISTS', key, 'm')
try('HLEN', key)
try('HGETALL', key)
try('HKEYS', key)
try('HINCRBY', key, 'r', 1)
try('HDEL', key, 'm')
try('EXISTS', key)
try('DEL', key)
try('SADD', other, node)
try('SMEMBERS', other)
try('SREM', other, node)
try('SET', key, '1', 'PX', '1000')
try('PEXPIRE', key, '1000')
try('DEL', key)
try(command, T .. 'try:' .. node, '')
return refused
`)

	// farewellScript ends the node's lease and takes out its members, at most so many.
	farewellScript = newScript("farewell", `
redis.call('DEL', T .. 'l:' .. node)
return sweep(node, tonumber(ARGV[4]))
`)
)

// script is one script of Lua and the sum by which Redis knows it.
type script struct{ name, text, sum string }

func newScript(name, body string) *script {
	text := library + body
	sum := sha1.Sum([]byte(text)) // Redis names a script by it
	return &script{name: name, text: text, sum: hex.EncodeToString(sum[:])}
}

// run runs the script with one key.
func (s *script) run(ctx context.Context, c doer, key string, args []string) rueidis.RedisResult {
	result := c.Do(ctx, c.B().Evalsha().Sha1(s.sum).Numkeys(1).Key(key).Arg(args...).Build())
	if said, ok := rueidis.IsRedisErr(result.Error()); ok && said.IsNoScript() {
		return c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build())
	}
	return result
}
