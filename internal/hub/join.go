package hub

import (
	"time"

	"github.com/gopushy/pushy/broker"
)

// JoinRequest describes a Join.
type JoinRequest struct {
	Channel string // the name, which the protocol has validated
	Auth    string // as the client sent it
	Data    []byte // presence data as the client sent it, nil for none
	// Claims are what a credential says that the protocol has verified, or nil.
	Claims *Claims
	// User is the user of the member, if it is another one than that of the connection.
	User    string
	Request []byte // the request id, which the answer repeats
	// Trusted means that the host has decided the join: Authorize is not called, and the
	// join does not count towards the client's rate.
	Trusted bool

	Past     Past
	Hold     bool      // the membership outlives the connection for the grace period
	Return   Returning // the membership that the client wants to take over
	Presence Presence
}

// Past says which events of a kept channel the client wants, in addition to those that
// follow. The zero value wants none.
type Past struct {
	Since   *broker.Position // the last event that the client has
	Was     []string         // the ids of its connections since then, for Except
	Partial bool             // wants what is left if not everything after Since is kept
	Rewind  Rewind           // without Since, or if not everything after it is kept
}

// Rewind selects the newest events: at most Events of them, and, if Age is not 0, none that
// is older. The zero value selects none.
type Rewind struct {
	Events int
	Age    time.Duration
}

// Returning names a membership, with the key that proves that the client had it. The zero
// value names none.
type Returning struct {
	ID  string
	Key string
}

// PresenceMode is how a client receives the members of a channel.
type PresenceMode uint8

// The modes of presence.
const (
	PresenceList  PresenceMode = iota // the whole list, then each join and leave
	PresenceDiff                      // a page of the list, then collected changes
	PresenceJoins                     // the whole list, then each join and leave, but no other change; for other protocols
	PresenceCount                     // the number of members
	PresenceNone
)

// Presence says how a client receives the members of a channel.
type Presence struct {
	Mode  PresenceMode
	Since *Revision // of PresenceDiff: the revision that the client has
	Limit int       // of PresenceDiff: the number of members in the answer; 0 is the default
}
