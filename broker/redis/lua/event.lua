-- event appends an event. ARGV: 9 how many are kept, or '0', 10 how long, in
-- milliseconds, 11 how many bytes of data, or '0', 12 the bytes of this one's data.
local keep, ttl, most, length = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
if keep == 0 then return done('e' .. entry, '', 0) end
local meta, list = T .. 'e:' .. channel, T .. 'k:' .. channel

-- meta has: the numbers of the last event and of the first that is kept; when the
-- first expires and when the list does, or 0; the bytes that are kept; until when all
-- this is remembered; and what begins the epoch.
local last, first, expires, listed, bytes
local base = redis.call('GET', meta)
if base and #base > 48 then
	last, first, expires, listed, bytes = struct.unpack('>ddddd', base)
	last, first, expires, listed, bytes = whole(last), whole(first), whole(expires), whole(listed), whole(bytes)
	base = string.sub(base, 49)
end
if not (last and first and expires and listed and bytes and first <= last + 1 and #base <= 20) then
	base, last, first, expires, listed, bytes = s[2], 0, 1, 0, 0, 0
	-- A channel that is in the index had a meta, which was evicted or broken.
	if redis.call('ZADD', T .. 'index', now, channel) == 0 then base = fresh end
	redis.call('DEL', list)
end
last = last + 1
local epoch = base .. '-' .. run
local expiry = ttl > 0 and now + ttl or 0
local element = numbered('n', epoch, last, expiry, length, entry)
local kept = redis.call('RPUSH', list, element)
if kept ~= last - first + 1 then -- the list has expired, or is not what was written
	if kept > 1 then
		redis.call('DEL', list)
		redis.call('RPUSH', list, element)
	end
	first, bytes, listed = last, 0, 0
end
if first == last then expires, listed = expiry, 0 end
bytes = bytes + length

local function look(old, at) return old and #old > 33 and whole(struct.unpack('>d', old, at)) end
-- One append does not drop more than others can wait for.
local enough = last - first - 999
while first <= last and (last - first + 1 > keep or most > 0 and bytes > most or expires > 0 and expires <= now) and
	last - first + 1 > enough do
	if last - first + 1 > keep or most > 0 and bytes > most then
		bytes = math.max(bytes - (look(redis.call('LPOP', list), 26) or 0), 0)
		first = first + 1
	else
		expires = look(redis.call('LINDEX', list, 0), 18) or now
		if expires > 0 and expires <= now then
			bytes = math.max(bytes - (look(redis.call('LPOP', list), 26) or 0), 0)
			first = first + 1
		end
	end
end
-- The list's own expiry frees its memory; readers go by that of each event.
if first > last then
	listed = 0
elseif ttl == 0 then
	if listed > 0 then redis.call('PERSIST', list) end
	listed = 0
elseif listed < expiry and not (listed == 0 and first < last) then
	listed = expiry + math.floor(ttl / 4) + 1000
	redis.call('PEXPIREAT', list, listed)
end
local remembered = now + math.max(86400000, 10 * ttl)
redis.call('SET', meta, struct.pack('>dddddd', last, first, expires, listed, bytes, remembered) .. base)
return done(element, epoch, last)
