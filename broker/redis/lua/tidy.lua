-- tidy removes, once an hour, the logs of events to which nothing was appended for a long
-- time. ARGV: 5 a new epoch, 6 the number of logs to check. It returns 1 if there may be
-- more. A log that begins after one was removed has another epoch.
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
