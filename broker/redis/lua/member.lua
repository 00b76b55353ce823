-- member appends a join, update, leave or adoption. ARGV: 9 the kind, 10 the member, 11 the
-- owner, 12 the owner that an adoption expects, 13 '1' if a join has data, 14 the user,
-- 15 the time of the join, 16 the lease of this node in milliseconds, 17 the hash that
-- identifies the adoption.
local kind, member, owner = ARGV[9], ARGV[10], ARGV[11]
local key = T .. 'm:' .. channel
local h = redis.call('HMGET', key, 'b', 'r', 'c', 'o', 'm' .. member)
local base, rev, count, on, m = h[1], whole(h[2]), whole(h[3]), h[4], split(h[5])
local lost = not (base and #base <= 20 and string.match(base, '^%w+$') and rev and count)
if lost then
	base, rev, count, on = fresh, 0, 0, 0 -- a new log, or one that others have broken
	if h[1] or h[2] or h[3] then
		redis.call('DEL', key)
		m = nil
	end
end
local epoch = base .. '-' .. run

if kind == 'join' or kind == 'adopt' then
	local lease = redis.call('ZSCORE', T .. 'nodes', node)
	if not lease or lease == '0' then return redis.error_reply('NOLEASE the lease of the node has expired') end
end
if kind == 'join' then
	if m and m.owner == owner then return {1, epoch, m.since, 0} end
	if m then return redis.error_reply('EXISTS the member has another owner') end
	if redis.call('EXISTS', T .. 'a:' .. ARGV[17]) == 1 then return redis.error_reply('NOTOWNER the member was adopted') end
elseif not m or m.owner ~= (kind == 'adopt' and ARGV[12] or owner) then
	if lost then redis.call(command, T .. 'c:' .. channel, 'f') end -- other nodes may have members that are gone
	return redis.error_reply('NOTOWNER the member has another owner or is not there')
end

rev = rev + 1
local message = numbered('n', epoch, rev, 0, 0, entry)
if kind == 'leave' then
	remove(channel, member, m, rev, count)
	return done(message, epoch, rev)
end
local from = m and m.node
if kind == 'join' then
	m = {since = rev, joined = tonumber(ARGV[15]), node = node, owner = owner, user = ARGV[14], entry = entry}
	count = count + 1
	if ARGV[13] == '1' then on = 1 end
elseif kind == 'update' then
	m.entry = entry
else
	m.node, m.owner = node, owner
end
redis.call('HSET', key, 'b', base, 'r', rev, 'c', count, 'o', on or 0, 'm' .. member,
	struct.pack('>ddI4I4I4', m.since, m.joined, #m.node, #m.owner, #m.user) .. m.node .. m.owner .. m.user .. m.entry)
if kind == 'join' and count == 1 then redis.call('PERSIST', key) end
if kind == 'adopt' then
	local lease = math.max(tonumber(ARGV[16]), leaseOf(from))
	redis.call('SET', T .. 'a:' .. ARGV[17], '1', 'PX', 2 * lease)
end
if from ~= m.node then
	if from then redis.call('SREM', T .. 'n:' .. from, owned(channel, member)) end
	redis.call('SADD', T .. 'n:' .. m.node, owned(channel, member))
end
return done(message, epoch, rev)
