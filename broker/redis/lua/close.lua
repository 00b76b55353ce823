-- close removes the node from the result of nodes. Its members remain until its lease has
-- expired, and the key that marks it as closed lives a minute longer than the lease.
redis.call('HDEL', T .. 'settings', node) -- a full server refuses no write after this
local left = (whole(redis.call('ZSCORE', T .. 'nodes', node)) or 0) - now
if left > 0 then redis.call('SET', T .. 'closed:' .. node, '1', 'PX', left + 60000) end
return 1
