// Package nats is the broker of pushy Servers that act as one through a NATS server
// or cluster with JetStream (nats-server -js), version 2.9 or later:
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Broker:    nats.New(nats.Options{URL: "nats://10.0.0.5:4222"}),
//	})
//
// The Server opens and closes it. All Servers that use one Prefix on one NATS act as one.
// It implements all interfaces of package broker, whose comment has the promises.
//
// # How to reach NATS
//
// Options.URL is the address of one server, or those of several servers of a cluster with
// commas between: the node connects to another when its own is away. The scheme is nats,
// tls, ws or wss. The node authenticates with User and Password, a Token, the file of
// Credentials, or that of an NKey; a user and password, or a token, may also stand in the
// URL. TLS is used if Options.TLS is not nil, and with tls and wss: RootCAs has the
// authorities of a private one, Certificates a client certificate.
//
// Options that are wrong, or that NATS does not accept, are a *SettingError, which names
// the option and never contains a password. Options.Validate finds those that are wrong in
// themselves, without connecting.
//
// # Subjects, streams and permissions
//
// A channel, a member and a node are one token of a subject each: the name, with every
// byte but A-Z, a-z, 0-9, "_" and "-" as %XX. With the default prefix and format
// version 1 these are the subjects:
//
//	pushy.1.c.{channel}            events, on their way to the nodes
//	pushy.1.k.{class}.{channel}    kept events; the stream pushy-1-{class} has them
//	pushy.1.m.c.{channel}.{member} members; the stream pushy-1-members has all of m
//	pushy.1.m.n.{node}             signs of life
//	pushy.1.m.k.{class}            the classes that there are
//	pushy.1.m.s.epoch              the epoch
//	pushy.1.i.{hash}               ids; the stream pushy-1-ids
//	pushy.1.l.{hash}               other records of the Ledger; the stream pushy-1-records
//	_INBOX.>                       answers; Options.InboxPrefix replaces _INBOX
//
// A user needs these permissions in the server's configuration:
//
//	permissions: {
//	  publish: ["pushy.1.>", "$JS.API.>"]
//	  subscribe: ["pushy.1.>", "_INBOX.>"]
//	}
//
// What NATS does not permit is an error of the call that needed it, with the subject in
// it, and one line a minute in the log. Open tries what every node needs.
//
// The nodes make the streams that are missing, and use those that are there as they are.
// A stream that an operator has made with other limits stays so.
//
// # Events
//
// An event that is not kept is one message of core NATS, and nothing is stored. Append
// returns when the server has confirmed it. In a NATS cluster the servers tell each
// other of new subscriptions a moment after Follow has returned, and an event that is
// not kept and comes through another server in that moment is lost.
//
// A kept event is stored in the stream of its class and sent to the nodes by that
// stream. There is a class for each size, rounded up to a power of two from 16, and
// each TTL over 4.8 hours, rounded up to that times a power of two. There are at most eight
// classes, and the first event of a ninth is an error. When the Keep of a channel changes,
// its log goes on in the other class with the next offset, and what was kept before is not
// read any more.
//
// The offset is in the message: a node knows the last one, and stores the next only if
// the last message of the channel is still that. So an append costs one request, and
// appends of one channel on one node go one after the other. Appends of several nodes
// to one channel at once cost the slower one two more.
//
// Keep.Size, Keep.TTL and Keep.Bytes hold when events are read, by the clocks of the
// nodes: they should agree to a second. NATS removes what is over the class's size at
// once; the node that appended an event removes it soon after its TTL, except for a
// channel's last, which has its offset. That is remembered for two days, or ten times
// the TTL if that is more. Of a node that died, up to Keep.Size events a channel may stay
// for as long.
//
// An epoch is a random part that all channels share, and the day on which the log began, so
// an empty channel has another one each day. Another random part is made when NATS has lost
// the messages of a stream, because a server without Options.Files was restarted or an
// operator has purged it. One channel begins an epoch of its own when its log has vanished
// or has lost its end.
//
// # Members
//
// Every node has the members of all channels of the cluster in memory, as one consumer
// brings them. Measured with ids of 36 bytes, owners of 42 and data of 50, a member takes
// 600 bytes, so 100,000 take 60 MB on each node. When a node starts or finds NATS again it
// reads them all, for 1.8 s of its CPU time. 100,000 members is what this is made for;
// for many more use broker/redis. A revision is the sequence of an entry in the stream of
// all channels: it grows by more than one, and never begins anew within an epoch. A channel
// whose members have all left has revision 0 again some leases later.
//
// An entry is stored only if the member's last entry is the one that the node knows, so
// an append costs one request, and a refusal or a conflict two.
//
// A node gives a sign of life three times in its lease. When one has been silent for
// longer, another marks it as gone, which it notices, and appends the Leaves. What is left
// of members is removed after three leases.
//
// # When NATS is away
//
// If NATS cannot be reached at the start, Open returns nil, and the node connects when it
// can; with Options.RequireAtStart Open fails. While NATS is away all calls fail at once
// with broker.ErrAway, and the Server serves its own clients alone. A node notices a server that is there and
// silent after twice Options.Timeout. It tries to connect at once, and then at least every
// two seconds. When NATS is back it reads all members, and resets all channels that it
// follows. The same happens when a stream was deleted or purged, when its leader does not
// answer, and when JetStream takes nothing because it is full.
//
// # Limits
//
//   - An entry must fit into the server's max_payload, less 512 bytes; what does not fails
//     with broker.ErrTooLarge.
//   - 1,048,576 IDs are remembered at a time, and as many records in the Ledger; one more
//     fails with broker.ErrBusy. A record's key has at most 256 bytes, its digest 64, its
//     answer 4 KiB.
//   - Eight classes of Keep, as said above.
//   - The streams have no limit in bytes unless Options.MaxBytes sets one. When one is
//     full, the node counts as away.
//
// Messages on pushy's subjects that pushy did not send are skipped, with one log line a
// minute.
//
// # Settings that matter
//
// Options.Replicas should be 3 in a NATS cluster of three servers: it then outlives one of
// them without a loss. Options.Files makes a single server's restart harmless, at the cost
// of its disk; after a power failure it may lack what was stored last, and a node that
// knows more begins a new epoch for the channel.
package nats
