// Package nats connects pushy Servers on several machines through a NATS server or cluster
// with JetStream (nats-server -js), version 2.9 or newer. It implements package broker with
// all its optional interfaces.
//
//	srv, err := pushy.New(pushy.Options{
//		SecretKey: key,
//		Broker:    nats.New(nats.Options{URL: "nats://10.0.0.5:4222"}),
//	})
//
// The Server opens and closes the broker. All Servers with the same Prefix on the same NATS
// act as one.
//
// # Connection options
//
// Options.URL is the address of one server, or a list of addresses of servers of a cluster,
// separated by commas: if the server of a node fails, the node connects to another one. The
// scheme is nats, tls, ws or wss. The node authenticates with User and Password, a Token,
// the file of Credentials, or the file of an NKey. The URL can contain a user and password,
// or a token, instead. TLS is used if Options.TLS is not nil, and with the schemes tls and
// wss. Set RootCAs for a private certificate authority, and Certificates for a client
// certificate.
//
// If an option is invalid, or NATS does not accept it, the error is a *SettingError, which
// names the option and never contains a password. Options.Validate finds invalid options
// without connecting.
//
// # Subjects, streams and permissions
//
// The name of a channel, a member or a node is one token of a subject, in which every byte
// except A-Z, a-z, 0-9, "_" and "-" is encoded as %XX. With the default Prefix and format
// version 1, the subjects are:
//
//	pushy.1.c.{channel}            events, as the nodes receive them
//	pushy.1.k.{class}.{channel}    kept events, in the stream pushy-1-{class}
//	pushy.1.m.c.{channel}.{member} members; all subjects with m are in the stream pushy-1-members
//	pushy.1.m.n.{node}             heartbeats
//	pushy.1.m.k.{class}            the classes that exist
//	pushy.1.m.s.epoch              the epoch
//	pushy.1.i.{hash}               IDs, and Ledger records that live for at most 21 minutes,
//	                               in the stream pushy-1-ids
//	pushy.1.l.{hash}               other records of the Ledger, in the stream pushy-1-records
//	_INBOX.>                       answers; Options.InboxPrefix replaces _INBOX
//
// A user needs these permissions in the server's configuration:
//
//	permissions: {
//	  publish: ["pushy.1.>", "$JS.API.>"]
//	  subscribe: ["pushy.1.>", "_INBOX.>"]
//	}
//
// If a permission is missing, the call that needs it returns an error with the subject, and
// one line a minute is logged. Open tests the permissions that every node needs.
//
// The nodes create the streams that do not exist, and do not change existing streams. An
// operator can create a stream with other limits.
//
// # Events
//
// An event that is not kept is one message of core NATS, and is not stored. Append returns
// when the server has confirmed it. In a NATS cluster, the servers announce new
// subscriptions to each other shortly after Follow has returned. An event that is not kept
// and is published through another server before that is lost.
//
// A kept event is stored in the stream of its class, which republishes it to the nodes.
// There is one class for each combination of Keep.Size, rounded up to a power of two of at
// least 16, and Keep.TTL, rounded up to 4.8 hours times a power of two. There are at most
// eight classes; an event that needs a ninth class is refused. When the Keep of a channel
// changes, its log continues in the other class with the next offset, and the events that
// were kept before are no longer returned.
//
// The message contains the offset. A node caches the last one, and stores the next message
// only if the last message of the channel is unchanged. So an append costs one request, and
// the appends of one node to one channel are not concurrent. If several nodes append to one
// channel at the same time, each conflict costs two more requests. A message also contains
// the sequences of the 16 messages before it. So a read of the newest events costs one request
// an event, and three more. Events that are far from the end are found by a binary search, so
// the length of the log hardly matters.
//
// Keep.Size, Keep.TTL and Keep.Bytes are enforced when events are read, by the clocks of the
// nodes, which should agree to one second. NATS removes events over the size of the class at
// once. The node that appended an event removes it soon after its TTL, except for the last
// event of a channel, which has the channel's offset. That event is remembered for two days,
// or for ten times the TTL if that is longer. If a node dies, up to Keep.Size events of it
// in each channel can remain for the same time.
//
// An epoch consists of a random part, which all channels share, and the day on which the log
// began, so an empty channel has another epoch each day. A new random part is created when
// NATS has lost the messages of a stream, because a server without Options.Files was
// restarted or an operator has purged the stream. A single channel begins a new epoch when
// its log, or the end of its log, is missing.
//
// # Members
//
// Every node has the members of all channels of the cluster in memory, and receives all
// changes through one consumer. With IDs of 36 bytes, owners of 42 bytes and data of 50
// bytes, a member takes 600 bytes, so 100,000 members take 60 MB on each node. When a node
// starts, or reconnects to NATS, it reads all of them, which takes 1.8 s of its CPU time.
// This broker is designed for 100,000 members; for many more, use broker/redis. A revision
// is the sequence of an entry in the stream of all channels. Within an epoch it increases,
// by more than one, and is never reused. When all members of a channel have left, its
// revision becomes 0 again some leases later.
//
// An entry is stored only if the node knows the member's last entry. So an append costs one
// request, and a refusal or a conflict two.
//
// A node sends three heartbeats in the time of its lease. When its lease has expired without
// a heartbeat, another node marks it as dead and appends the Leaves of its members. The
// marked node detects the mark. A heartbeat has the length of the lease, which Extend changes,
// and the last heartbeat of a node says that the node is closed. The records of members that
// have left are removed after three leases, and not before the adoptions in them have expired.
//
// # While NATS is away
//
// If NATS cannot be reached at the start, Open returns nil, and the node connects as soon as
// it can. With Options.RequireAtStart, Open returns an error instead. While NATS is away,
// all calls fail at once with broker.ErrAway, and the Server serves its own clients alone. A
// node detects a server that does not answer within twice Options.Timeout. It reconnects at
// once, and then retries at least every two seconds. When it has reconnected, it reads all
// members and resets all channels that it follows. It does the same when a stream was
// deleted or purged, when the leader of a stream does not answer, and when JetStream accepts
// no messages because it is full.
//
// # Limits
//
//   - An entry must fit into the server's max_payload minus 512 bytes. A larger one fails
//     with broker.ErrTooLarge.
//   - 1,048,576 IDs are remembered at a time, and the Ledger has as many records. One more
//     fails with broker.ErrBusy. The Broker is no broker.IDForgetter, because JetStream needs
//     a request for each ID: IDs and the ids of signed requests are remembered for their
//     whole time, which is enough for 873 a second in total. A record's key has at most 256 bytes, its digest 64 bytes,
//     and its answer 4 KiB.
//   - There are at most eight classes of Keep.
//   - The streams have no limit in bytes unless Options.MaxBytes sets one. When a stream is
//     full, NATS counts as away.
//
// Messages on pushy's subjects that pushy did not send are skipped, with one log line a
// minute.
//
// # Durability
//
// In a NATS cluster of three servers, set Options.Replicas to 3, so that the loss of one
// server loses no data. With Options.Files, the restart of a single server loses no data, at
// the cost of disk writes. After a power failure, the messages that were stored last can be
// missing; a node that has received them begins a new epoch of the channel.
package nats
