package pushy

import (
	"context"
	"encoding/json"

	"github.com/gopushy/pushy/internal/roster"
)

// Member is one membership of a private channel, on whichever node.
type Member struct {
	ID string // its memberId: new for every subscription, tells nothing of the connection
	// HasData reports whether the subscription brought presence data. The
	// first that did turns the channel's presence on, until it is empty.
	HasData bool
	// JSON is the member as clients see it: its data's fields, then subscribed,
	// memberId and idle (PROTOCOL.md, section 4).
	JSON json.RawMessage
}

// Change is one entry of a channel's presence log.
type Change struct {
	Revision uint64 // grows by at least one from entry to entry
	Left     bool   // Member left; else it joined
	Member   Member // only the ID counts when it left
	// State, if not nil, is no entry but all there is at its Revision, be that
	// lower than the last: for a log that could not be followed, or is lost.
	State *Snapshot
}

// Snapshot is what the entries of a channel's log up to Revision amount to.
type Snapshot struct {
	Revision uint64
	On       bool     // a member with data joined since the log was last empty
	Members  []Member // in joining order
}

// A PresenceStore is an ordered log of who joins and leaves each private
// channel, shared by the Servers that act as one. The default serves one
// process. Every member is logged, with or without data, so that all nodes
// read one state at one revision.
//
// A member is logged as left when the Server that joined it has ended or failed,
// however that happened. A store that was away logs its members' joins again as far as
// needed, and gives apply the new State.
//
// A Server skips members whose ID is not 1 to 64 of A-Z a-z 0-9 _ -, or whose JSON
// is not an object with that ID as memberId of at most 256 KiB (or twice
// Limits.PresenceBytes, if that is more), duplicates in a Snapshot, and revisions
// over 2^63-1. It logs that once a minute.
//
// All methods are called from many goroutines, never with a lock held, and
// return within ctx.
type PresenceStore interface {
	// Join logs that m joined. It is not done twice for one Member.ID. After
	// an error the entry may be there or not; the Server then calls Leave.
	Join(ctx context.Context, channel string, m Member) error
	// Leave logs that a member left; for an unknown one it does nothing. A
	// store that cannot log it now must see to it later.
	Leave(ctx context.Context, channel, memberID string) error
	// Watch returns the state and then calls apply with every later change,
	// in order, one at a time, until some time after ctx is cancelled. apply
	// may be called before Watch returns. It only queues, so it returns soon,
	// and never calls the store. One Server has at most one Watch of a channel.
	Watch(ctx context.Context, channel string, apply func(Change)) (Snapshot, error)
	Close() error
}

// localPresence is the PresenceStore of a single process.
type localPresence struct{ logs roster.Logs[Member] }

var _ PresenceStore = (*localPresence)(nil)

func (l *localPresence) Join(_ context.Context, channel string, m Member) error {
	return l.logs.Join(channel, m.ID, m, m.HasData)
}

func (l *localPresence) Leave(_ context.Context, channel, memberID string) error {
	return l.logs.Leave(channel, memberID)
}

func (l *localPresence) Watch(ctx context.Context, channel string, apply func(Change)) (Snapshot, error) {
	members, on, revision, err := l.logs.Watch(ctx, channel, func(e roster.Entry[Member]) {
		apply(Change{Revision: e.Revision, Left: e.Left, Member: e.Value})
	})
	return Snapshot{Revision: revision, On: on, Members: members}, err
}

func (l *localPresence) Close() error { return l.logs.Close() }
