-- nodes answers the nodes whose lease is not over.
return redis.call('ZRANGEBYSCORE', T .. 'nodes', '(' .. now, '+inf')
