-- event appends an event. ARGV: 9 Keep.Size, 10 Keep.TTL in milliseconds, 11 Keep.Bytes,
-- 12 the bytes of the event's data.
local keep, ttl, most, length = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
if keep == 0 then return done('e' .. entry, '', 0) end
local meta, list = T .. 'e:' .. channel, T .. 'k:' .. channel

-- meta contains: the numbers of the last event and of the first one that is kept; the expiry
-- times of the first event and of the list, or 0; the bytes that are kept; the time until
-- which meta is remembered; and the first part of the epoch.
local last, first, expires, listed, bytes
local base = redis.call('GET', meta)
if base and #base > 48 then
	last, first, expires, listed, bytes = struct.unpack('>ddddd', base)
	last, first, expires, listed, bytes = whole(last), whole(first), whole(expires), whole(listed), whole(bytes)
	base = string.sub(base, 49)
end
if not (last and first and expires and listed and bytes and first <= last + 1 and #base <= 20) then
	base, last, first, expires, listed, bytes = s[2], 0, 1, 0, 0, 0
	-- If the channel is in the index, its meta was evicted or damaged.
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
-- One append removes at most 1,000 events, so that it does not block Redis for long.
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
-- The expiry of the list only frees its memory. Readers use the expiry of each event.
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
