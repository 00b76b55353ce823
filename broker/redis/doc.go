// Package redis connects pushy Servers on several machines through Redis 6 or newer:
// stand-alone, with Sentinel, or a Cluster. It implements package broker with all its
// optional interfaces.
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Broker:    redis.New(redis.Options{Addresses: []string{"10.0.0.5:6379"}}),
//	})
//
// The Server opens and closes the broker. All Servers with the same Prefix on the same
// Redis act as one.
//
// # Connection options
//
// Options.Addresses are host:port. URLs are refused, because a password in a URL is easily
// logged: set Options.Username, Options.Password, Options.Database and Options.TLS instead.
// The default is 127.0.0.1:6379 without a password.
//
//   - Stand-alone: one address. It can be the address of a load balancer that always
//     forwards to the primary.
//   - Sentinel: the addresses of the Sentinels, and Options.SentinelMaster, the name that
//     the Sentinels have for the primary. SentinelUsername and SentinelPassword
//     authenticate to the Sentinels, Username and Password to Redis.
//   - Cluster: the addresses of some of its nodes, and Options.Cluster. The node discovers
//     the others. A Cluster has only database 0. With Redis 7 or newer, Pub/Sub is sharded;
//     with Redis 6, every event is sent to all nodes of the Cluster. The channels are
//     distributed over 16 hash slots, and a pushy node has one connection for each.
//
// If Options.TLS is not nil, all connections use TLS, including those to the Sentinels. An
// empty tls.Config trusts the system's certificate authorities. Set RootCAs for a private
// authority, and Certificates for a client certificate.
//
// If an option is invalid, or Redis does not accept it, the error is a *SettingError, which
// names the option and never contains a password. Options.Validate finds invalid options
// without connecting.
//
// # Cost of an append
//
// An event that is not kept and has no ID is one PUBLISH. Every other append is one Lua
// script, which numbers, stores and publishes the entry. A node has one subscription for
// each channel that it follows.
//
// # While Redis is away
//
// If Redis cannot be reached at the start, Open returns nil after at most twice
// Options.Timeout, and the node connects as soon as it can. With Options.RequireAtStart,
// Open returns an error instead. If a node loses its connection, or receives no answer for
// Options.Timeout, every call fails at once with broker.ErrAway, and the Server serves its
// own clients alone. The node retries with pauses of up to one second. When it has
// reconnected, it subscribes to all channels that it follows and calls Sink.Reset for each
// of them, with one of these reasons:
//
//   - "gap": messages may have been missed
//   - "lease": other nodes have removed the members of this node
//   - "restarted": Redis was restarted, or another server has become the primary
//   - "epoch": the data was deleted
//
// Every five seconds a node checks that messages arrive on the connection with its
// subscriptions. If they do not, although the connection is open, it replaces the connection,
// at most once a minute. In a Cluster of Redis 6 it does not check this.
//
// A server that has become a replica, that is loading its data, or that answers BUSY
// because of a long-running script, counts as away: the node reconnects until it finds a
// primary that answers. So it follows a failover behind an address that always leads to the
// primary.
//
// # Positions
//
// Redis acknowledges writes before they are on disk and before its replicas have received
// them. After a restart or a failover, the last writes can be missing. Therefore positions
// get a new epoch then, and a request for the events after an older position reports that
// events may be missing. The epoch depends on the server's run_id, which each new
// connection reads before it appends anything. It also changes when the store is emptied,
// and about once a day for channels to which nothing is appended.
//
// A proxy that distributes the commands of one connection over several servers hides new
// connections. Set Options.CheckEveryAppend behind such a proxy.
//
// The numbers of kept events are remembered after the last append for 24 hours, or for ten
// times the TTL if that is longer. The revisions of members are remembered for one hour
// after the last member has left.
//
// # Keys
//
// All keys and channels begin with a hash tag and the format version. The hash tag is
// {pushy} with the default Prefix, or in a Cluster {pushy:0} to {pushy:15}:
//
//	{pushy}versions         sorted set: the format versions in use, with their expiry times
//	{pushy}1:store          hash: the parts of the epochs of positions
//	{pushy}1:nodes          sorted set: the nodes, with the expiry times of their leases
//	{pushy}1:n:{node}       set: the node's members
//	{pushy}1:leases         hash: the lengths of the nodes' leases
//	{pushy}1:closed:{node}  string: the node was closed, until its lease has expired
//	{pushy}1:settings       hash: the nodes' settings, to find differences
//	{pushy}1:m:{channel}    hash: the channel's members
//	{pushy}1:e:{channel}    string: the numbers of the channel's kept events
//	{pushy}1:k:{channel}    list: the channel's kept events
//	{pushy}1:index          sorted set: the channels with kept events
//	{pushy}1:a:{hash}       string: an adoption, for two leases
//	{pushy}1:i:{hash}       string: an entry's ID, for at most 20 minutes
//	{pushy}1:ids:{number}   string: the number of IDs
//	{pushy}1:l:{key}        hash: a record of the Ledger
//	{pushy}1:ledger         sorted set: the Ledger's keys
//	{pushy}1:until          sorted set: the Ledger's keys, with their expiry times
//	{pushy}1:try:...        keys with which Open tests the permissions
//	{pushy}1:c:{channel}    Pub/Sub: the channel's entries
//	{pushy}1:probe, unused, try    Pub/Sub: names that carry no entries
//
// Open returns an error if nodes with another format version use the same prefix. Keys,
// fields and messages that pushy did not write are removed or skipped, with one log line a
// minute.
//
// # Limits
//
//   - An entry has at most 4 MiB.
//   - Each hash slot remembers 1,048,576 IDs at a time, and the Ledger has as many records.
//     One more fails with broker.ErrBusy. A record's key has at most 256 bytes, its digest
//     64 bytes, and its answer 4 KiB.
//   - Options.Prefix has at most 100 bytes.
//
// Memory: a member takes about 300 bytes and its data, a kept event about 80 bytes and its
// data, a channel with kept events 200 bytes, and an ID 120 bytes. Set maxmemory-policy to
// noeviction: other policies can remove members and kept events. The nodes detect a removal,
// which never causes a wrong replay. When the memory is full, joins and kept events fail;
// leaves, leases and events that are not kept continue to work.
//
// # Permissions
//
// These commands create a user for pushy with the default Prefix, on Redis 6.2 or newer.
// Since Redis 7, a new user has no permission for Pub/Sub channels unless it is granted:
//
//	ACL SETUSER pushy on >password ~{pushy* &{pushy*
//	ACL SETUSER pushy +hello +auth +ping +client|setname +select +info
//	ACL SETUSER pushy +subscribe +unsubscribe +publish +evalsha +eval
//	ACL SETUSER pushy +get +set +mget +incr +del +exists +type +time
//	ACL SETUSER pushy +pexpire +pexpireat +persist +pttl
//	ACL SETUSER pushy +hget +hmget +hgetall +hset +hdel +sadd +srem +spop
//	ACL SETUSER pushy +rpush +lpop +lindex +lrange +llen
//	ACL SETUSER pushy +zadd +zrem +zscore +zcard +zrangebyscore +zrangebylex
//
// A Cluster also needs these; the second line is for Redis 7 or newer:
//
//	ACL SETUSER pushy +cluster +asking +readonly
//	ACL SETUSER pushy +ssubscribe +sunsubscribe +spublish
//
// Redis 6.0 has no permissions for channels: omit the part that begins with "&". If a
// permission is missing, Open returns a *SettingError that names the command. INFO is
// optional, except in a Cluster. Without it, the epoch changes with each new connection,
// and a node detects a replica only when the replica refuses a write.
//
// After an upgrade of a Cluster from Redis 6 to 7, restart all pushy nodes together: they
// choose the kind of Pub/Sub when they start.
package redis
