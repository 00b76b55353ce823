-- The beginning of every script. A script has one key, the store of its shard. The other
-- keys begin with T, which has the same hash tag, so they are in the same slot.
local store, T, command, node, channel = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- whole returns a number that can be counted up without loss, or nil for anything else,
-- which another program may have written.
local function whole(n)
	n = tonumber(n)
	if n and n >= 0 and n < 4503599627370496 and n % 1 == 0 then return n end
end
