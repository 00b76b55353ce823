-- tops returns the store's "run" and "base", and the metas of the channels that are ARGV from
-- 5 on.
local s = redis.call('HMGET', store, 'run', 'base')
if not (s[1] and s[2]) then return redis.error_reply('NOSTORE the store was emptied') end
local keys = {}
for i = 5, #ARGV do keys[i - 4] = T .. 'e:' .. ARGV[i] end
return {s[1], s[2], redis.call('MGET', unpack(keys))}
