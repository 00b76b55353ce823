-- check is what CheckEveryAppend adds.
identify(ARGV[6], false)
