-- nodes returns the nodes whose lease has not expired.
return redis.call('ZRANGEBYSCORE', T .. 'nodes', '(' .. now, '+inf')
