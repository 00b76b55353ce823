package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// FormatVersion is the version of the format in which brokers store and send entries. Nodes
// with different versions cannot share a store.
const FormatVersion = 1

// Errors of a Broker. Any other error means that the broker cannot perform the operation at
// this time.
var (
	// ErrClosed is returned by every method after Close, and before Open.
	ErrClosed = errors.New("broker: closed")
	// ErrAway is wrapped by the errors of all methods while the broker cannot be reached.
	ErrAway = errors.New("broker: away")
	// ErrUncertain is wrapped, beside ErrAway, by the error of an Append that was under way
	// when the connection was lost: the entry may have been appended.
	ErrUncertain = errors.New("broker: it is not known whether the entry was appended")
	// ErrNotOwner is returned for an Update, Leave, Adopt or Join that names an owner which
	// the member does not have.
	ErrNotOwner = errors.New("broker: the member does not exist or has another owner")
	// ErrMemberExists is returned for a Join of a member that another owner has.
	ErrMemberExists = errors.New("broker: the member exists and has another owner")
	// ErrTooLarge is returned for an entry that is too large for the broker.
	ErrTooLarge = errors.New("broker: the entry is too large")
	// ErrBusy is returned when the broker has no room for another ID or key.
	ErrBusy = errors.New("broker: too many ids are remembered")
	// ErrVersion is wrapped by the error of Open if nodes of another format use the same
	// store. The message has both versions.
	ErrVersion = errors.New("broker: nodes with another format version use this store")
	// ErrEpoch is returned by Read for a position of another epoch.
	ErrEpoch = errors.New("broker: the position belongs to another epoch")
)

// A Broker connects Servers, which are its nodes, so that they act as one. The package
// comment has the rules. All methods are safe for concurrent use and return soon after ctx
// has ended.
//
// A Server calls Open once, before any other method, and Close last. It does not call
// Follow and Unfollow concurrently for the same channel.
type Broker interface {
	// Open connects the node. It returns an error if the configuration or the store is not
	// usable. If the store cannot be reached, Open succeeds and Health reports it.
	Open(ctx context.Context, o OpenOptions, sink Sink) error
	// Follow returns the channel's State and delivers every later entry to the sink, in
	// order. If Follow returns an error, the channel is not followed, unless the error
	// wraps ErrAway: then the broker follows the channel when it can be reached again, and
	// reports that with a Reset.
	Follow(ctx context.Context, channel string) (State, error)
	// Unfollow ends a Follow. It has no effect for a channel that is not followed.
	Unfollow(ctx context.Context, channel string) error
	// Append adds an entry to a channel's log. The broker sets the entry's At, Prev and
	// Time; the values of the caller are ignored.
	Append(ctx context.Context, channel string, e Entry) (Appended, error)
	// Close disconnects the node and removes it from Cluster.Nodes, unless the store cannot
	// be reached. Members that the node did not leave remain until its lease has expired. If
	// the Broker was not opened or its Open failed, Close returns ErrClosed.
	Close(ctx context.Context) error
}

// A Sink receives what a Broker delivers. The package comment says when and how it is
// called.
type Sink interface {
	// Deliver is called for each entry.
	Deliver(channel string, e Entry)
	// Reset reports that the node may have missed entries of a channel. State is the
	// complete current state. The reason is one of the Reset constants.
	Reset(channel string, s State, reason string)
}

// Reasons of a Reset.
const (
	ResetGap       = "gap"       // entries may have been lost
	ResetEpoch     = "epoch"     // the log has a new epoch: the store was emptied
	ResetRestarted = "restarted" // the store restarted or failed over, and may lack entries
	ResetLease     = "lease"     // the node's lease expired while it was disconnected
)

// OpenOptions describe the node that opens a Broker.
type OpenOptions struct {
	// Node is the node's random id. No other node ever has the same id.
	Node string
	// Lease is how long the node's members remain after it has failed. It is positive.
	// Leaser.Extend makes it longer.
	Lease time.Duration
	// Settings are options that must be equal on all nodes, by name, such as "Grace":
	// "15s". The broker compares them with the settings of the other nodes and logs one
	// warning for each that differs.
	Settings map[string]string
}

// Kind is the kind of an Entry.
type Kind uint8

// The kinds of entries.
const (
	Event  Kind = iota + 1 // a published event
	Join                   // a member joins
	Update                 // a member's data and state are replaced
	Leave                  // a member leaves
	Adopt                  // a member changes its owner; clients are not notified
)

// Entry is one entry of a channel's log. Its Kind decides which of the fields are used.
type Entry struct {
	Kind Kind

	// Fields of events.
	Event     string   // the event's name
	Except    []string // ids of the connections that do not receive it
	From      string   // the id of the client that published it, or ""
	Latest    string   // replaces queued events of the channel with the same key
	Droppable bool     // can be omitted for a slow connection
	Keep      Keep     // how it is kept; zero: it is not kept and has no position

	// Fields of member entries.
	Member   string // the member's id
	Owner    string // set by Join and Adopt, expected by Update and Leave
	OldOwner string // expected by Adopt
	User     string // of a Join: the id of the user, or ""
	// Joined is the time at which the membership of a Join began, by the clock of its node,
	// in milliseconds. If a node repeats a Join after an outage, Joined is unchanged.
	Joined time.Time

	// Data is the data of an event, or the data of a member for Join and Update. It is JSON
	// that the broker does not interpret. A Join with Data sets State.On.
	Data json.RawMessage
	// State is what changes while the member stays, for Join and Update. It is JSON that the
	// broker does not interpret, or nil.
	State json.RawMessage
	// ID is an idempotency key, or "".
	ID string

	// Fields that the broker sets on delivery.
	At   Position  // the offset of a kept event or the revision of a member entry
	Prev uint64    // the number that precedes At.Offset; 0 with At.Offset > 1 means unknown
	Time time.Time // when it was appended, by the broker's clock; zero for an event that is not kept
}

// Keep says how many of a channel's events are kept. The zero value keeps none. When a
// limit is exceeded, the oldest events are removed first.
type Keep struct {
	Size  int           // the number of events
	TTL   time.Duration // how long an event is kept
	Bytes int           // the bytes of event data; 0 is unlimited
}

// Receivers is what a Broker knows about the receivers of an event on other nodes.
type Receivers uint8

const (
	Unknown Receivers = iota // the broker cannot tell
	None                     // no other node follows the channel
	Some                     // another node follows the channel
)

// Appended is the result of an Append.
type Appended struct {
	At        Position // zero for an event that is not kept
	Duplicate bool     // an entry with the same ID was appended before, and this is its result
	Receivers Receivers
}

// Member is a member of a channel.
type Member struct {
	ID    string
	Owner string
	Node  string // the node on whose lease the member depends
	User  string
	Data  json.RawMessage // of its Join or last Update; nil if there is none
	State json.RawMessage // of its Join or last Update; nil if there is none
	Since uint64          // the revision of its Join, which an Adopt does not change
	// Joined is that of its Join. Update and Adopt do not change it.
	Joined time.Time
}

// State is the state of a channel at one moment.
type State struct {
	// At is the position of the last kept event. It is zero on a broker without History.
	At Position
	// Revision is the revision of the last member entry.
	Revision Position
	// Members are in the order in which they joined.
	Members []Member
	// On reports whether a member with Data has joined since the channel last had no
	// members.
	On bool
}

// Health is an optional interface of a Broker that can be away.
type Health interface {
	// Away returns why the broker cannot be reached, or nil. It does not block.
	Away() error
}

// Cluster is an optional interface of a Broker that knows its nodes.
type Cluster interface {
	// Nodes returns the ids of the nodes that are not closed and whose lease has not expired,
	// sorted.
	Nodes(ctx context.Context) ([]string, error)
}

// Leaser is an optional interface of a Broker that can make the lease of its node longer. A
// node that is about to be closed uses it, so that its members remain until other nodes have
// adopted them.
type Leaser interface {
	// Extend renews the node's lease, which has the given length from now on, also after
	// Close. The other nodes wait for that length even if their own leases are shorter. A
	// length below the current one has no effect. If Extend returns an error, the other nodes
	// may not have received the new length; if the error wraps ErrAway, they receive it when
	// the node renews its lease again. The error wraps errors.ErrUnsupported if the Broker
	// wraps another one that is not a Leaser.
	Extend(ctx context.Context, lease time.Duration) error
}
