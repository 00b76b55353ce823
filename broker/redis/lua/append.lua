-- The common part of the scripts that append. ARGV: 5 the entry, 6 a new epoch, 7 the hash
-- of the entry's ID or '', 8 the maximum number of IDs.
local s = redis.call('HMGET', store, 'run', 'base')
if not (s[1] and s[2]) then return redis.error_reply('NOSTORE the store was emptied') end
local run, entry, fresh, id = s[1], ARGV[5], ARGV[6], ARGV[7]
-- IDs are counted by intervals of five minutes. A count lives as long as its IDs.
local slot = math.floor(now / 300000)
if id ~= '' then
	local first = redis.call('GET', T .. 'i:' .. id)
	if first then
		local epoch, offset = string.match(first, '^(%S*) (%d+)$')
		return {1, epoch or '', whole(offset) or 0, 0}
	end
	local many, slots = 0, {}
	for i = 0, 4 do slots[i + 1] = T .. 'ids:' .. (slot - i) end
	for _, n in ipairs(redis.call('MGET', unpack(slots))) do many = many + (whole(n) or 0) end
	if many >= whole(ARGV[8]) then return redis.error_reply('BUSY too many ids are remembered') end
end

-- done publishes a message, stores the result for the ID, and returns the result.
local function done(message, epoch, offset)
	local receivers = redis.call(command, T .. 'c:' .. channel, message)
	if id ~= '' then
		redis.call('SET', T .. 'i:' .. id, string.format('%s %.0f', epoch, offset), 'PX', 1200000)
		local count = T .. 'ids:' .. slot
		if redis.call('INCR', count) == 1 then redis.call('PEXPIRE', count, 1800000) end
	end
	return {0, epoch, offset, receivers}
end

-- numbered encodes an entry with a number: the kind, the number, the time of the append, the
-- expiry time or 0, the bytes of its data or 0, the length of the epoch, the epoch, and the
-- entry.
local function numbered(kind, epoch, offset, expiry, bytes, text)
	return kind .. struct.pack('>ddddB', offset, now, expiry, bytes, #epoch) .. epoch .. text
end
