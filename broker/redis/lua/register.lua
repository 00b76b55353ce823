-- register runs on each new connection, before any other script. ARGV: 5 a new epoch.
register(ARGV[5], true)
return 1
