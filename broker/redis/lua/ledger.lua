-- ledger claims, finishes, releases and lists keys. The record of a key is a hash: "d" is
-- the digest, "c" the time of the claim, "a" the answer. The sorted set "ledger" has the keys
-- in their order, and "until" has their expiry times. ARGV: 5 the operation, 6 the key, 7 the
-- digest.
local what, key, digest = ARGV[5], ARGV[6], ARGV[7]
local record = T .. 'l:' .. key

if what == 'list' then -- ARGV: 6 the first key, 7 the end, 8 how many at most
	local list = {}
	for _, each in ipairs(redis.call('ZRANGEBYLEX', T .. 'ledger', ARGV[6], ARGV[7], 'LIMIT', 0, ARGV[8])) do
		local r = redis.pcall('HMGET', T .. 'l:' .. each, 'd', 'a')
		if r.err or not r[1] then r = {'', false} end
		list[#list + 1] = {each, r[1], r[2] or '', r[2] and 1 or 0, redis.call('PTTL', T .. 'l:' .. each)}
	end
	return list
end

local kind = redis.call('TYPE', record).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', record) end
local r = redis.call('HMGET', record, 'd', 'c', 'a')
local mine = r[1] == digest
if what == 'finish' then -- ARGV: 8 the answer
	if not mine then return redis.error_reply('NOTOWNER the claim has expired or another digest') end
	redis.call('HSET', record, 'a', ARGV[8])
	return 1
end
if what == 'release' then
	if mine and not r[3] then
		redis.call('DEL', record)
		redis.call('ZREM', T .. 'ledger', key)
		redis.call('ZREM', T .. 'until', key)
	end
	return 1
end
-- claim. ARGV: 8 the lifetime, 9 the time limit of a claim without an answer, 10 the maximum
-- number of keys.
if r[1] then
	if not mine then return {4, ''} end
	if r[3] then
		if redis.call('PTTL', record) < tonumber(ARGV[8]) then
			redis.call('PEXPIRE', record, ARGV[8])
			redis.call('ZADD', T .. 'until', now + tonumber(ARGV[8]), key)
		end
		return {3, r[3]}
	end
	if now - (whole(r[2]) or 0) < tonumber(ARGV[9]) then return {2, ''} end
else
	for _, old in ipairs(redis.call('ZRANGEBYSCORE', T .. 'until', '-inf', now, 'LIMIT', 0, 4)) do
		redis.call('ZREM', T .. 'ledger', old)
		redis.call('ZREM', T .. 'until', old)
	end
	if redis.call('ZCARD', T .. 'until') >= tonumber(ARGV[10]) then
		return redis.error_reply('BUSY too many keys are claimed')
	end
end
redis.call('HSET', record, 'd', digest, 'c', now)
redis.call('PEXPIRE', record, ARGV[8])
redis.call('ZADD', T .. 'ledger', 0, key)
redis.call('ZADD', T .. 'until', now + tonumber(ARGV[8]), key)
return {1, r[1] and 'again' or ''}
