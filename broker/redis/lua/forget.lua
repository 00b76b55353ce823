-- forget removes a channel's kept events and begins a new epoch. ARGV: 5 the new epoch.
redis.call('ZADD', T .. 'index', now, channel)
redis.call('DEL', T .. 'k:' .. channel)
redis.call('SET', T .. 'e:' .. channel, struct.pack('>dddddd', 0, 1, 0, 0, 0, now + 86400000) .. ARGV[5])
redis.call(command, T .. 'c:' .. channel, 'f')
return 1
