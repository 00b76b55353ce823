-- register runs on each new connection, before all else. ARGV: 5 a fresh epoch.
register(ARGV[5], true)
return 1
