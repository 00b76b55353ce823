-- tidy forgets the logs of events to which nothing was appended for long, once an
-- hour. ARGV: 5 a fresh epoch, 6 how many are looked at. It answers whether there
-- may be more. A log that begins where one was forgotten begins in another epoch.
local done = whole(redis.call('HGET', store, 'tidied')) or 0
if now - done < 3600000 then return 0 end
redis.call('HDEL', store, '') -- a full server refuses no write after this
local all = redis.call('ZRANGEBYSCORE', T .. 'index', '-inf', now - 86400000, 'LIMIT', 0, ARGV[6])
local base = redis.call('HGET', store, 'base')
for _, channel in ipairs(all) do
	local meta = redis.pcall('GET', T .. 'e:' .. channel)
	local known = type(meta) == 'string' and #meta > 48
	local remembered = known and whole(struct.unpack('>d', meta, 41)) or 0
	if remembered > now then
		redis.call('ZADD', T .. 'index', remembered - 86400000, channel)
	else
		if known and string.sub(meta, 49) == base then
			base = ARGV[5]
			redis.call('HSET', store, 'base', base)
		end
		redis.call('DEL', T .. 'e:' .. channel, T .. 'k:' .. channel)
		redis.call('ZREM', T .. 'index', channel)
	end
end
if #all == tonumber(ARGV[6]) then return 1 end
redis.call('HSET', store, 'tidied', now)
return 0
