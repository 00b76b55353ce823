-- try tests the permissions: it calls every command of the scripts with keys that are not
-- used otherwise, and publishes a message without receivers. It returns the commands that
-- were refused, each with the reason.
local refused = {}
local function try(name, ...)
	local answer = redis.pcall(name, ...)
	if type(answer) == 'table' and answer.err then
		table.insert(refused, name)
		table.insert(refused, answer.err)
	end
end
local function key(kind) return T .. 'try:' .. kind .. ':' .. node end
local h, l, s, z, v = key('h'), key('l'), key('s'), key('z'), key('v')
try('TIME')
try('HSET', h, 'm', '1')
try('HGET', h, 'm')
try('HMGET', h, 'm')
try('HGETALL', h)
try('HDEL', h, 'm')
try('RPUSH', l, '1', '2')
try('LINDEX', l, 0)
try('LRANGE', l, 0, 1)
try('LLEN', l)
try('LPOP', l)
try('SADD', s, '1', '2')
try('SREM', s, '1')
try('SPOP', s, 1)
try('ZADD', z, 0, '1')
try('ZSCORE', z, '1')
try('ZCARD', z)
try('ZRANGEBYSCORE', z, 0, 1)
try('ZRANGEBYLEX', z, '-', '+')
try('ZREM', z, '1')
try('SET', v, '1', 'PX', '60000')
try('INCR', v)
try('GET', v)
try('MGET', v)
try('PTTL', v)
try('PEXPIRE', v, '60000')
try('PEXPIREAT', v, '1')
try('PERSIST', v)
try('EXISTS', v)
try('TYPE', v)
try('DEL', h, l, s, z, v)
try(command, T .. 'try', '')
return refused
