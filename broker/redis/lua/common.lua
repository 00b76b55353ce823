-- What every script begins with. A script has one key, its lane's store; the other
-- keys begin with T, which has the same hash tag, and so are in the same slot.
local store, T, command, node, channel = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- whole returns a count that others have left room to go on from, or nil for what
-- they may have written in its place.
local function whole(n)
	n = tonumber(n)
	if n and n >= 0 and n < 4503599627370496 and n % 1 == 0 then return n end
end
