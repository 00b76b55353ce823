-- read returns kept events, and writes nothing. ARGV: 5 Range.Epoch, 6 Range.After,
-- 7 Range.Before, 8 Range.Limit, 9 Range.Bytes. It returns the epoch, the number of the last
-- event, the number of the first one that is kept, and the events.
local s = redis.call('HMGET', store, 'run', 'base')
if not (s[1] and s[2]) then return redis.error_reply('NOSTORE the store was emptied') end
local base, list = redis.call('GET', T .. 'e:' .. channel) or '', T .. 'k:' .. channel
local last, first, expires
if #base > 48 then
	last, first, expires = struct.unpack('>ddd', base)
	last, first, expires, base = whole(last), whole(first), whole(expires), string.sub(base, 49)
end
if not (last and first and expires and first <= last + 1) then return {s[2] .. '-' .. s[1], 0, 1, {}} end
local epoch = base .. '-' .. s[1]
local kept = redis.call('LLEN', list)
if kept ~= last - first + 1 then -- it has expired, or others have written to it
	return {epoch, last, last + 1, {}}
end

local function look(element, at) return #element > 33 and whole(struct.unpack('>d', element, at)) or 0 end
local begin = first -- has index 0
while expires > 0 and expires <= now and first <= last do
	for _, element in ipairs(redis.call('LRANGE', list, first - begin, first - begin + 49)) do
		expires = look(element, 18)
		if expires == 0 or expires > now then break end
		first = first + 1
	end
end
if ARGV[5] ~= '' and ARGV[5] ~= epoch then return {epoch, last, first, {}} end

local before, limit, most = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local result, bytes = {}, 0
local back = before > 0
local from, to = math.max(tonumber(ARGV[6]) + 1, first), last
if back then from, to = first, math.min(before - 1, last) end
while from <= to and #result < limit do
	local n, elements = math.min(limit - #result, most > 0 and 32 or 500, to - from + 1)
	if back then
		elements = redis.call('LRANGE', list, to - n + 1 - begin, to - begin)
		to = to - n
	else
		elements = redis.call('LRANGE', list, from - begin, from + n - 1 - begin)
		from = from + n
	end
	for i = 1, #elements do
		local element = elements[back and #elements + 1 - i or i]
		if most > 0 then
			bytes = bytes + look(element, 26)
			if bytes > most and #result > 0 then return {epoch, last, first, result} end
		end
		result[#result + 1] = element
	end
end
return {epoch, last, first, result}
