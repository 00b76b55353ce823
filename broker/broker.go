package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// FormatVersion is the version of what brokers store and send. Nodes of
// different versions cannot share a store.
const FormatVersion = 1

// Errors of a Broker. Other errors mean that it cannot do what was asked now.
var (
	// ErrClosed is returned by every method after Close, and before Open.
	ErrClosed = errors.New("broker: closed")
	// ErrAway is wrapped by the error of every method while the broker cannot be
	// reached.
	ErrAway = errors.New("broker: away")
	// ErrUncertain is wrapped, beside ErrAway, by the error of an Append that was under
	// way when the connection was lost: the entry may have been appended.
	ErrUncertain = errors.New("broker: it is not known whether the entry was appended")
	// ErrNotOwner is returned for an Update, Leave, Adopt or Join that names an
	// owner which the member does not have.
	ErrNotOwner = errors.New("broker: the member does not exist or has another owner")
	// ErrMemberExists is returned for a Join of a member that another owner has.
	ErrMemberExists = errors.New("broker: the member exists and has another owner")
	// ErrTooLarge is returned for an entry that the broker can never take.
	ErrTooLarge = errors.New("broker: the entry is too large")
	// ErrBusy is returned when a bound on what is remembered is reached.
	ErrBusy = errors.New("broker: too many ids are remembered")
	// ErrVersion is wrapped by Open's error when nodes of another format use
	// the same store. The message names both versions.
	ErrVersion = errors.New("broker: nodes with another format version use this store")
	// ErrEpoch is returned by Read for a position of another epoch.
	ErrEpoch = errors.New("broker: the position belongs to another epoch")
)

// A Broker connects the Servers that act as one, its nodes. The package comment
// has the promises. All methods are safe for concurrent use and return soon
// after ctx has ended.
//
// A Server calls Open once, before anything else, and Close last. For one
// channel, Follow and Unfollow are not called concurrently.
type Broker interface {
	// Open connects the node. An error means that the configuration or the
	// store is wrong; a store that is merely away is reported by Health.
	Open(ctx context.Context, o OpenOptions, sink Sink) error
	// Follow returns the channel's State; every later entry goes to the sink,
	// in order. After an error the channel is not followed, unless the error
	// wraps ErrAway: then the broker follows the channel as soon as it is back,
	// and reports that with a Reset.
	Follow(ctx context.Context, channel string) (State, error)
	// Unfollow ends a Follow. It does nothing for a channel that is not followed.
	Unfollow(ctx context.Context, channel string) error
	// Append adds an entry to a channel's log. The entry's At, Prev and Time are
	// ignored: the broker sets them.
	Append(ctx context.Context, channel string, e Entry) (Appended, error)
	// Close disconnects the node. Members that it did not leave stay until its
	// lease has expired. A Broker that was not opened, or whose Open failed, has
	// nothing to close and returns ErrClosed.
	Close(ctx context.Context) error
}

// A Sink takes what a Broker delivers. The package comment says when and how it
// is called.
type Sink interface {
	Deliver(channel string, e Entry)
	// Reset reports that what the node knows of a channel may be incomplete;
	// State is everything there is now. The reason is one of the Reset constants.
	Reset(channel string, s State, reason string)
}

// Reasons of a Reset.
const (
	ResetGap       = "gap"       // entries may have been lost on the way
	ResetEpoch     = "epoch"     // the log is another one: the store was emptied
	ResetRestarted = "restarted" // the store restarted or failed over, and may lack entries
	ResetLease     = "lease"     // the node's lease expired while it was cut off
)

// OpenOptions are what a Server tells its Broker.
type OpenOptions struct {
	// Node is the node's random id, unique among all nodes at all times.
	Node string
	// Lease is how long the node's members outlive it. It is positive.
	Lease time.Duration
	// Settings are what must be equal on all nodes, by option, such as
	// "Grace": "15s". The broker compares them with the other nodes' and logs
	// one warning for each option that differs.
	Settings map[string]string
}

// Kind is what an Entry does.
type Kind uint8

// The kinds of entries.
const (
	Event  Kind = iota + 1 // a published event
	Join                   // a member joins
	Update                 // a member's data is replaced
	Leave                  // a member leaves
	Adopt                  // a member changes its owner; nobody is sent anything
)

// Entry is one entry of a channel's log. Which fields count depends on Kind.
type Entry struct {
	Kind Kind

	// Of events.
	Event     string   // the event's name
	Except    []string // ids of connections that do not receive it
	From      string   // the id of the client that published it, or ""
	Latest    string   // supersedes waiting events of the channel with the same key
	Droppable bool     // may be left out for a slow connection
	Keep      Keep     // zero: the event is not kept and has no position

	// Of member entries.
	Member   string // the member's id
	Owner    string // Join and Adopt set it, Update and Leave expect it
	OldOwner string // Adopt expects it
	User     string // of a Join: the id of the member's user, or ""
	// Joined is when the membership of a Join began, by the clock of its node, in
	// milliseconds. A Join that a node repeats after an outage has that of the first.
	Joined time.Time

	// Data is an event's data or a member's, for Join and Update: JSON that the
	// broker does not interpret. A Join with Data turns State.On.
	Data json.RawMessage
	// ID is an idempotency key, or "".
	ID string

	// Set by the broker on delivery.
	At   Position  // the offset of a kept event or the revision of a member entry
	Prev uint64    // the number before At.Offset; 0 with At.Offset > 1 means unknown
	Time time.Time // when it was appended, by the broker's clock; zero if it is not kept
}

// Keep says how much of a channel's events is kept. The zero value keeps
// nothing. When a bound is exceeded, the oldest events go first.
type Keep struct {
	Size  int           // events
	TTL   time.Duration // since an event was appended
	Bytes int           // of event data; 0 is unlimited
}

// Receivers is what a Broker knows of an event's receivers on other nodes.
type Receivers uint8

const (
	Unknown Receivers = iota // the broker cannot tell
	None                     // no other node follows the channel
	Some                     // another node follows the channel
)

// Appended is the result of an Append.
type Appended struct {
	At        Position // zero for an event that is not kept
	Duplicate bool     // an entry with the same ID was appended before: this is its result
	Receivers Receivers
}

// Member is a member of a channel.
type Member struct {
	ID    string
	Owner string
	Node  string // the node whose lease it depends on
	User  string
	Data  json.RawMessage // of its Join or last Update; nil if it has none
	Since uint64          // the number of its Join's revision, which an Adopt does not change
	// Joined is its Join's, which Update and Adopt do not change.
	Joined time.Time
}

// State is a channel at one moment.
type State struct {
	// At is the position of the last kept event. On a broker without History
	// it is zero.
	At Position
	// Revision is that of the last member entry.
	Revision Position
	// Members are in joining order.
	Members []Member
	// On reports whether a member with Data has joined since the channel last
	// had no members.
	On bool
}

// Health is an optional interface of a Broker.
type Health interface {
	// Away returns why the broker cannot be reached, or nil, at once.
	Away() error
}

// Cluster is an optional interface of a Broker that knows its nodes.
type Cluster interface {
	// Nodes returns the ids of the nodes whose lease has not expired, sorted.
	Nodes(ctx context.Context) ([]string, error)
}
