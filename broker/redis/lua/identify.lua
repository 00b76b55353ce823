-- must calls a command. Its error contains the name of the command, which Redis's own error
-- does not.
local function must(name, ...)
	local answer = redis.pcall(name, ...)
	if type(answer) == 'table' and answer.err then error(name .. ': ' .. answer.err) end
	return answer
end

-- identify begins a new epoch of all positions if another server answers than before, or if
-- the same server was a replica in the meantime: entries can be missing there. Without the
-- permission for INFO, it begins a new epoch for each new connection.
local function identify(fresh, connected)
	local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
	local id = ''
	if type(server) == 'string' and type(replication) == 'string' then
		id = string.match(server, 'run_id:(%w+)') or ''
	end
	if id == '' then
		if connected then must('HSET', store, 'run', fresh, 'id', '') end
		return
	end
	id = id .. ':' .. (string.match(replication, 'master_replid2:(%w*[1-9a-f]%w*)') or '')
	if must('HGET', store, 'id') ~= id then must('HSET', store, 'id', id, 'run', fresh) end
end

-- register creates the store if there is none, and identifies its server.
local function register(fresh, connected)
	local s = redis.pcall('HMGET', store, 'life', 'base', 'run')
	for i = 1, 3 do
		if s.err or not (s[i] and #s[i] <= 20 and string.match(s[i], '^%w+$')) then
			must('DEL', store)
			must('HSET', store, 'life', fresh, 'base', fresh, 'run', fresh)
			break
		end
	end
	identify(fresh, connected)
end
