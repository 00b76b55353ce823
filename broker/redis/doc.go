// Package redis connects pushy Servers on several machines over Redis: version 6 or
// newer, stand-alone, with Sentinel, or a Cluster. It implements package broker with
// all its optional interfaces.
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Broker:    redis.New(redis.Options{Addresses: []string{"127.0.0.1:6379"}}),
//	})
//
// # What an append costs
//
// An event that is not kept and has no ID is one PUBLISH. Every other append is one
// script: it numbers the entry, stores it, and publishes it. An entry is at most
// 4 MiB. A node has one subscription for each channel that it follows. In a Cluster of
// version 7 or newer the subscriptions are sharded. A Cluster's channels are spread
// over 16 hash slots.
//
// # When Redis is away
//
// A node that loses its connection fails at once with broker.ErrAway. When Redis is
// back it reconnects by itself, subscribes to all channels that it follows, and calls
// Sink.Reset for each of them, with one of these reasons: "gap", a message may have
// been missed; "lease", other nodes removed the members of this one meanwhile;
// "restarted", Redis restarted or another server took over; "epoch", the data is gone.
//
// A server that has become a replica, or that is loading its data, counts as away:
// the node reconnects until it finds a primary. It therefore follows a failover
// behind one address that always leads to the primary.
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
// # What Redis must be like
//
// Memory: a member takes about 300 bytes and its data, a kept event about 80 and its
// data, a channel with kept events 200. An ID takes 120 bytes for 20 minutes. Set
// maxmemory-policy to noeviction: other policies can remove members and kept events.
// What was removed is noticed, and never leads to a wrong replay. When the memory is
// used up, joins and events that are kept fail; leaves, leases and events that are not
// kept go on.
//
// Keys, fields and messages that pushy did not write are removed or skipped, with one
// log line a minute. All keys and channels begin with Options.Prefix in braces.
//
// Nodes of another format version with the same prefix are refused by Open.
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
