// Package broker is the contract between pushy Servers that act as one and the
// store or message system that connects them. It has no dependencies beyond the
// standard library. broker/memory implements it within one process, and
// broker/brokertest has its rules as a test suite.
//
// # What a broker keeps
//
// A broker keeps an ordered log for each channel: its events, as far as they
// are kept, and the members that joins, updates, adoptions and leaves amount
// to. A Server is a node of the broker. It follows the channels that its
// clients are in and receives every entry that is appended to them, on whatever
// node, including its own.
//
// # Order
//
//   - Kept events of a channel have one order on all nodes, that of their
//     offsets.
//   - Joins, updates, adoptions and leaves of a channel have one order on all
//     nodes, that of their revisions.
//   - Events that are not kept have the order of each publisher.
//   - There is no order between these three.
//   - When nothing is appended any more, all nodes have the same members.
//   - A join is delivered before the leave that ends it. A join and a leave that
//     follow each other closely may both be left out.
//   - A gap is reported with Sink.Reset and never silent.
//
// # Positions and revisions
//
// The offset of a kept event and the revision of a member entry are numbers
// that grow within an epoch, offsets by one. An epoch is a string that belongs to
// one life of the log: when the store was emptied, restarted without its data,
// or replaced by a copy that may lack entries, the epoch changes. Numbers of
// different epochs cannot be compared.
//
// Following or reading a channel writes nothing. A channel to which nothing was
// appended has the epoch of the store and number 0, and its first kept event
// has number 1 in that epoch. The numbers of kept events are forgotten at the
// earliest after the longer of 24 hours and ten times their TTL without an append,
// revisions when a channel has had no members for a while. What begins anew begins
// in a new epoch: its first entry has number 1 and Prev 0.
//
// # Ownership
//
// A member has an owner, a random string that the node which appended its Join
// made up. Update, Leave and Adopt take effect only if the member's owner is
// the one that they name, and fail with ErrNotOwner otherwise. So a Leave that
// arrives late cannot remove a member that has been adopted elsewhere. A Join
// for a member that exists fails with ErrMemberExists unless it names the same
// owner, in which case it is a duplicate. A Join for a member whose Adopt took
// it from that owner within the last two leases fails with ErrNotOwner, also
// after the member has left: a node that was stopped for longer than its lease
// must not bring back what another node took over.
//
// # Leases
//
// OpenOptions.Lease is how long the members of a node outlive the node. When a
// node stopped vouching for itself for that long, whether it was closed, killed
// or cut off, the broker appends the Leave of each of its members. An Adopt
// moves a member to the lease of the node that appended it.
//
// # Away
//
// A broker that cannot be reached says so: its methods fail with errors that
// wrap ErrAway, soon and not only when ctx ends, and Health.Away returns the
// reason. It does not queue, and it keeps nothing for its node: the node serves
// its own clients meanwhile. When the broker is back it calls Sink.Reset for
// every followed channel, and the node compares the State with what it has: it
// joins its members that are missing, appends the Leave of members that depend
// on its lease and that it does not have, and ends memberships that were
// adopted elsewhere.
//
// # Deliveries
//
//   - Sink.Deliver and Sink.Reset do not block and never call the broker.
//     A broker may call them while it holds its own locks.
//   - Calls for one channel are never concurrent; calls for different channels
//     may be.
//   - They may be called before Follow returns, and then concern what comes
//     after the State that Follow returns. A Reset that is delivered while
//     Follow runs has a State which is newer than the one that Follow returns
//     if its revision or epoch differs.
//   - Following a channel that is followed returns the State of now; nothing is
//     delivered twice because of it.
//   - An entry may still be delivered while Unfollow runs, none after it
//     returned. None is delivered after Close returned.
//   - Neither side changes an Entry's Data, so both may keep it.
//
// # Appending
//
// A node may append to channels that it does not follow. When Append returns an
// error that wraps the context's or ErrUncertain, the entry may have been appended
// or not; an append with the same ID tells. After an error that wraps ErrAway alone
// it was not appended: the node may deliver the event to its own clients. An entry that the broker can never take because
// of its size fails with ErrTooLarge, and nothing is appended.
//
// An Entry with an ID is appended once for each channel within the broker's ID
// window, at least 20 minutes; a repetition returns the first result with
// Duplicate set, from whatever node it comes. A broker that cannot remember
// another ID fails with ErrBusy rather than forget one early.
//
// # Optional interfaces
//
// Health, History, Ledger and Cluster are found by type assertion. A Broker that wraps
// another has those that it passes on itself: to embed the interface Broker hides them.
// Without Health a broker is never away, without History it keeps no events.
//
// # Faults
//
// A Server contains what a Broker does wrong. A method that panics or ends its goroutine
// (runtime.Goexit) has failed, and the log says how. An Append of an event runs on the
// goroutine of the caller of Server.Publish; the other methods have goroutines of their
// own. A method that does not return when its context has ended holds up its caller.
//
// # Bytes from outside
//
// Nodes check what a broker delivers. They skip an event whose name the protocol does
// not allow or whose data is not one JSON value of valid UTF-8 of at most 16 MiB (or
// Limits.TriggerBytes, if that is more), a member whose ID is not 1 to 64 of
// A-Z a-z 0-9 _ - or whose data is not an object of at most 256 KiB (or twice
// Limits.PresenceBytes), and numbers over 2^62. An implementation must all the same
// survive bytes that no pushy Server wrote: it skips them with at most one log line a minute,
// and never panics. The encoding of Entry is in AppendEntry and ParseEntry; it
// carries a version and skips fields that it does not know. Keys or subjects
// carry FormatVersion, and Open fails with ErrVersion when it finds nodes of
// another format in the same store.
package broker
