// Package broker is the contract between pushy Servers that act as one and the store or
// message system that connects them. It depends only on the standard library. Package
// broker/memory implements the contract within one process. Package broker/brokertest tests
// implementations.
//
// # Logs
//
// A broker has an ordered log for each channel. The log contains the channel's events, as
// far as they are kept, and the entries that change its members: joins, updates, adoptions
// and leaves. A Server is a node of the broker. It follows the channels that its clients
// are in, and receives every entry that any node, including itself, appends to them.
//
// # Order
//
//   - Kept events of a channel have one order on all nodes, that of their
//     offsets.
//   - Joins, updates, adoptions and leaves of a channel have one order on all
//     nodes, that of their revisions.
//   - Events that are not kept have the order in which their publisher appended
//     them.
//   - There is no order between these three.
//   - When no more entries are appended, all nodes have the same members.
//   - A join is delivered before the leave that ends it. A join and a leave that
//     follow each other closely may both be left out.
//   - A gap is always reported with Sink.Reset.
//
// # Positions and revisions
//
// The offset of a kept event and the revision of a member entry are numbers that increase
// within an epoch; offsets increase by one. An epoch is a string that identifies one
// lifetime of the log. The epoch changes when the store is emptied, when it is restarted
// without its data, and when it is replaced by a copy that may lack entries. Numbers of
// different epochs cannot be compared. If an epoch has a hyphen, the part before it remains
// when the store is restarted or replaced by a copy, so a node can tell a client that events
// of the same log may be missing; other epochs have no hyphen.
//
// Following or reading a channel writes nothing. A channel to which nothing was appended
// has the epoch of the store and number 0, and its first kept event has number 1 in that
// epoch. A broker may discard the numbers of kept events after the longer of 24 hours and
// ten times their TTL without an append, and revisions when a channel has had no members
// for some time. Numbers that were discarded begin again at 1, with Prev 0, in a new epoch.
//
// # Ownership
//
// A member has an owner, a random string that is chosen by the node which appended its
// Join. Update, Leave and Adopt name an owner. They take effect only if the member has that
// owner, and fail with ErrNotOwner otherwise. So a Leave that arrives late cannot remove a
// member that another node has adopted. A Join for a member that exists fails with
// ErrMemberExists, unless it names the same owner; then it is a duplicate. A Join also
// fails with ErrNotOwner if an Adopt took the member from that owner within the last two
// leases, even after the member has left: a node that was stopped for longer than its lease
// must not restore a member that another node has adopted. If the leases of the two nodes
// differ, the longer one counts.
//
// An Update replaces the member's Data and State: an Update without one of them removes it.
//
// # Leases
//
// OpenOptions.Lease is how long the members of a node remain after the node has failed.
// When a node has not renewed its lease for that long, because it was closed, killed or
// disconnected, the broker appends the Leave of each of its members. An Adopt moves a
// member to the lease of the node that appended it.
//
// Close removes the node from Cluster.Nodes at once, so that nobody waits for its answers. Its
// members remain until the lease expires, so that they can reconnect to another node, which
// adopts them. Leaser.Extend gives them more time than OpenOptions.Lease.
//
// # Away
//
// While a broker cannot be reached, its methods fail with errors that wrap ErrAway, before
// ctx ends, and Health.Away returns the reason. The broker does not queue entries and does
// not store the members of its node: the node serves its own clients without it. When the
// broker can be reached again, it calls Sink.Reset for every followed channel. The node
// compares the State with its own members. It appends the Join of its members that are
// missing and the Leave of members that depend on its lease and that it does not have, and
// it ends memberships that another node has adopted.
//
// # Deliveries
//
//   - Sink.Deliver and Sink.Reset do not block and never call the broker.
//     A broker can call them while it holds its own locks.
//   - Calls for one channel are never concurrent; calls for different channels
//     can be.
//   - They can be called before Follow returns, and then concern what follows
//     the State that Follow returns. A Reset that is delivered while Follow runs
//     has a State which is newer than the one that Follow returns if its
//     revision or epoch differs.
//   - An event that is not kept can still be delivered although it was appended shortly
//     before Follow.
//   - Following a channel that is already followed returns its current State;
//     nothing is delivered twice because of it.
//   - Entries can be delivered while Unfollow runs, but not after it has
//     returned. Nothing is delivered after Close has returned.
//   - Neither side changes an Entry's Data, so both can keep it.
//
// # Appending
//
// A node can append to channels that it does not follow. If Append returns an error that
// wraps the error of the context or ErrUncertain, the entry may have been appended or not;
// another Append with the same ID is safe. If the error wraps ErrAway alone, the entry was
// not appended, and the node can deliver the event to its own clients. An entry that is too
// large for the broker fails with ErrTooLarge, and nothing is appended.
//
// An Entry with an ID is appended only once for each channel within the broker's ID window,
// which is at least 20 minutes. A second Append with that ID, from any node, returns the
// first result with Duplicate set. A broker that has no room for another ID fails with
// ErrBusy; it does not discard IDs early, except those that IDForgetter.ForgetIDs names.
//
// # Records
//
// A Claim that finds the answer to its own digest makes the record last for at least the
// ttl of that Claim, so a key is never forgotten within the ttl after its last use. Records
// outlive the nodes, unless the Broker is a VolatileLedger. A Claim that replaces one without an
// answer sets Again.
//
// # Optional interfaces
//
// Health, History, Ledger, VolatileLedger, IDForgetter, Cluster and Leaser are found by type
// assertion. A Broker that wraps another one must implement those that it passes on: embedding
// the interface Broker hides them. A broker without Health is never away, a broker without History keeps no
// events, and the leases of a broker without Leaser have the length of OpenOptions.Lease.
//
// # Faults
//
// A Server protects itself from a faulty Broker. If a method panics or calls
// runtime.Goexit, the call has failed, and the failure is logged. An Append of an event
// runs on the goroutine of the caller of Server.Publish; each call of another method has a
// new goroutine. A method that does not return after its context has ended delays
// its caller.
//
// # Invalid data
//
// Nodes validate what a broker delivers. They skip an event whose name the protocol does
// not allow, or whose data is not one JSON value in valid UTF-8 of at most 16 MiB (or
// Limits.TriggerBytes, if that is more). They skip a member whose ID is not 1 to 64 of A-Z
// a-z 0-9 _ -, or whose data or state is not an object of at most 256 KiB (or twice
// Limits.PresenceBytes). They skip numbers over 2^62. An implementation must nevertheless
// handle bytes that were not written by a pushy Server: it skips them, logs at most one
// line a minute, and never panics. AppendEntry and ParseEntry define the encoding of an
// Entry; it has a version, and fields that are unknown are skipped. Keys or subjects
// contain FormatVersion, and Open fails with ErrVersion if it finds nodes of another format
// in the same store.
package broker
