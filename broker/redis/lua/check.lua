-- check is added by Options.CheckEveryAppend.
identify(ARGV[6], false)
