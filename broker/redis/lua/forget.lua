-- forget begins the log of a channel's events anew. ARGV: 5 a fresh epoch.
redis.call('ZADD', T .. 'index', now, channel)
redis.call('DEL', T .. 'k:' .. channel)
redis.call('SET', T .. 'e:' .. channel, struct.pack('>dddddd', 0, 1, 0, 0, 0, now + 86400000) .. ARGV[5])
redis.call(command, T .. 'c:' .. channel, 'f')
return 1
