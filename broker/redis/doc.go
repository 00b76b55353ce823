// Package redis connects pushy Servers on several machines over Redis: version 6 or
// newer, stand-alone, with Sentinel, or a Cluster. It implements package broker with
// all its optional interfaces.
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Broker:    redis.New(redis.Options{Addresses: []string{"10.0.0.5:6379"}}),
//	})
//
// The Server opens and closes it. All Servers that use one Prefix on one Redis act as
// one.
//
// # How to reach Redis
//
// Options.Addresses are written as host:port. URLs are refused, because a password in one
// would end up in logs: the user and the password go into Options.Username and
// Options.Password, the number of a database into Options.Database, and TLS into
// Options.TLS. The default is 127.0.0.1:6379 without a password.
//
//   - Stand-alone: one address. It may also be that of a load balancer which always leads
//     to the primary.
//   - Sentinel: the addresses of the Sentinels, and Options.SentinelMaster, the name under
//     which they know the primary. SentinelUsername and SentinelPassword are those of the
//     Sentinels, Username and Password those of Redis.
//   - Cluster: some of its nodes, and Options.Cluster. The others are found. There is only
//     database 0. In version 7 or newer Pub/Sub is sharded; in version 6 every event goes
//     to all nodes of the Cluster. The channels are spread over 16 hash slots, and a pushy
//     node has a connection for each.
//
// TLS is used for every connection, also to the Sentinels, if Options.TLS is not nil. An
// empty tls.Config trusts the authorities of the system; RootCAs has those of a private
// one, Certificates a client certificate.
//
// Options that are wrong, or that Redis does not accept, are a *SettingError, which names
// the option and never contains a password. Options.Validate finds those that are wrong in
// themselves, without connecting.
//
// # What an append costs
//
// An event that is not kept and has no ID is one PUBLISH. Every other append is one
// script: it numbers the entry, stores it, and publishes it. A node has one subscription
// for each channel that it follows.
//
// # While Redis is away
//
// If Redis cannot be reached at the start, Open returns nil after at most twice
// Options.Timeout, and the node connects when it can; with Options.RequireAtStart Open
// fails. A node that loses its connection, or gets no answer for Options.Timeout, fails
// every call at once with broker.ErrAway. The Server then serves its own clients alone. It
// tries to connect all the time, with pauses of up to a second. When Redis is back the node
// subscribes to all channels that it follows, and calls Sink.Reset for each of them, with
// one of these reasons: "gap", a message may have been missed; "lease", other nodes removed
// the members of this one meanwhile; "restarted", Redis restarted or another server took
// over; "epoch", the data is gone.
//
// A server that has become a replica, that is loading its data, or that runs a script for
// so long that it answers BUSY, counts as away: the node reconnects until it finds a primary
// that answers. It therefore follows a failover behind one address that always leads to the
// primary.
//
// # Positions
//
// Redis acknowledges writes before they are on disk and before its replicas have
// them. After a restart or a failover the last of them may be missing, so positions
// change their epoch then: nobody who asks for events after a position of before is
// told that nothing was missed. The epoch belongs to the server's run_id, which each
// new connection reads before anything is appended over it. It also changes when the
// store is emptied, and about once a day for channels to which nothing is appended.
//
// A proxy that passes the commands of one connection to several servers hides a new
// connection. Set Options.CheckEveryAppend behind one.
//
// The numbers of kept events are remembered for 24 hours or ten times their TTL after
// the last append, those of members for one hour after the last member has left.
//
// # Keys
//
// All keys and channels begin with a hash tag, which is {pushy} with the default Prefix, or
// in a Cluster {pushy:0} to {pushy:15}, and the format version:
//
//	{pushy}versions         sorted set: format versions in use, and until when
//	{pushy}1:store          hash: what the epochs of positions are made of
//	{pushy}1:nodes          sorted set: nodes, and when their leases expire
//	{pushy}1:n:{node}       set: the node's members
//	{pushy}1:settings       hash: settings of nodes, to find those that differ
//	{pushy}1:m:{channel}    hash: the channel's members
//	{pushy}1:e:{channel}    string: the numbers of the channel's kept events
//	{pushy}1:k:{channel}    list: the channel's kept events
//	{pushy}1:index          sorted set: channels with kept events
//	{pushy}1:a:{hash}       string: an adoption, for two leases
//	{pushy}1:i:{hash}       string: an entry's ID, for 20 minutes
//	{pushy}1:ids:{number}   string: how many IDs there are
//	{pushy}1:l:{key}        hash: a record of the Ledger
//	{pushy}1:ledger         sorted set: the Ledger's keys
//	{pushy}1:until          sorted set: when they expire
//	{pushy}1:try:...        keys by which Open tries the permissions
//	{pushy}1:c:{channel}    Pub/Sub: the channel's entries
//	{pushy}1:probe, unused, try    Pub/Sub: names that nobody publishes to
//
// Nodes of another format version with the same prefix are refused by Open. Keys, fields
// and messages that pushy did not write are removed or skipped, with one log line a minute.
//
// # Limits
//
//   - An entry has at most 4 MiB.
//   - 1,048,576 IDs are remembered at a time in each hash slot, and as many records in the
//     Ledger; one more fails with broker.ErrBusy. A record's key has at most 256 bytes, its
//     digest 64, its answer 4 KiB.
//   - Options.Prefix has at most 100 bytes.
//
// Memory: a member takes about 300 bytes and its data, a kept event about 80 and its data,
// a channel with kept events 200, an ID 120. Set maxmemory-policy to noeviction: other
// policies can remove members and kept events. What was removed is noticed, and never leads
// to a wrong replay. When the memory is used up, joins and events that are kept fail;
// leaves, leases and events that are not kept go on.
//
// # Permissions
//
// These commands make a user for pushy with the default Prefix, on Redis 6.2 or newer.
// Since Redis 7 a new user may not use any channel unless it is granted:
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
// With Cluster it needs these, too, the second line on Redis 7 or newer:
//
//	ACL SETUSER pushy +cluster +asking +readonly
//	ACL SETUSER pushy +ssubscribe +sunsubscribe +spublish
//
// Redis 6.0 has no permissions for channels: leave out the part that begins with "&".
// If a permission is missing, Open returns a *SettingError that names the command.
// Without INFO, which a Cluster requires, the epoch changes with each new connection,
// and a replica is noticed only when it refuses a write.
//
// After an upgrade of a Cluster from version 6 to 7, restart all pushy nodes together:
// they choose the kind of Pub/Sub when they start.
package redis
