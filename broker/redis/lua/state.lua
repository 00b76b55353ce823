-- state returns the state of a channel, and writes nothing: the store's "run" and "base", the
-- meta of the events, and the hash of the members.
local s = redis.call('HMGET', store, 'run', 'base')
if not (s[1] and s[2]) then return redis.error_reply('NOSTORE the store was emptied') end
return {s[1], s[2], redis.call('GET', T .. 'e:' .. channel) or '', redis.call('HGETALL', T .. 'm:' .. channel)}
