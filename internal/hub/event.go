package hub

import (
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
)

// EventKind is the kind of an Event.
type EventKind uint8

// The kinds of events. Connected, Subscribed, Ended, Direct, Replied, Failed, Dropped, WindowGrew
// and Draining go to one connection, the others to the members of a channel.
const (
	Connected  EventKind = iota + 1 // the connection is open
	Subscribed                      // from here on, the connection is in the channel
	Ended                           // the connection is no longer in the channel
	Direct                          // the host sends a message to the connection
	Replied                         // a typed command has succeeded
	Failed                          // a command has failed
	Published                       // an event was published
	Joined                          // a member has joined
	Left                            // a member has left
	Members                         // from here on, this is the list of members
	Gap                             // events of the channel may have been lost
	Updated                         // a member has changed
	Changed                         // members have changed: a batch for PresenceDiff or PresenceCount
	Listed                          // the answer to ListMembers
	Dropped                         // events of the channel were not sent to this connection
	WindowGrew                      // Conn.ReturnWithin is longer than before
	Draining                        // the connection ends now; the client is to return after the time Within
)

// Event is one message to clients, before a Protocol renders it. Its Kind decides which of
// the fields are used.
type Event struct {
	Kind    EventKind
	Channel string
	Name    string  // of Published and Direct
	Offset  uint64  // of a Published event that is kept
	From    string  // of a Published event that a client has sent: the id of its member
	Sender  *Member // with From, for other protocols: the member as clients see it, or nil
	Data    []byte  // of Published, Direct and Replied
	Conn    *Conn   // of Connected and Subscribed

	Member   string        // of Subscribed: the id of the member
	Key      string        // of Subscribed: with it, another connection can take the member over; or ""
	Returned bool          // of Subscribed: the client has named a member that it had
	Resumed  bool          // of Subscribed, with Returned: it has that member
	Within   time.Duration // of Draining and WindowGrew; of Subscribed: for this time, Members may lack some
	Expires  int64         // of Subscribed: when the permission expires, in Unix milliseconds, or 0
	Again    bool          // of Ended: the client may join again

	Joiner   *Member   // of Joined and Left
	Presence bool      // of Subscribed: Members is shown
	Members  []*Member // of Members and Subscribed, in joining order
	ListAt   *int      // of Subscribed, or nil: is set to the place in the message where Members belongs
	View     *View     // of Subscribed, Changed and Listed
	Update   *Update   // of Updated

	Past  *PastAnswer     // of Subscribed, or nil
	Place broker.Position // of Gap: the channel's place; zero if the channel keeps no events

	Code   string // of Failed
	Reason string // of Ended, Failed and Gap

	// Request is the id of the command that the event answers, in the protocol's
	// own form, or nil.
	Request []byte

	Count int64 // of Dropped
}

// A Protocol is one wire format: it parses the messages of clients and renders events. It
// keeps no state of a client.
type Protocol interface {
	// Append appends the message of an event to dst. The event is passed by value, so
	// that none is allocated for each publish.
	Append(dst []byte, e Event) []byte
	// AppendMember appends a member in the form that lists and events use. The core keeps
	// the result in Member.Text.
	AppendMember(dst []byte, m *Member) []byte
	// Separator returns what is between two members of a list.
	Separator() []byte
	// MemberData parses the presence data that a client sent with its Join. The result,
	// which is nil if there is no data, is passed to other nodes and to AppendMember. The
	// client sees the error.
	MemberData(data []byte) ([]byte, error)
	// AppendState appends a member's state in the form in which it is passed to other nodes,
	// or nothing if it is zero. ParseState is its inverse; the state of an invalid form is zero.
	AppendState(dst []byte, s MemberState) []byte
	ParseState(data []byte) MemberState
	// Handle handles a client's message, which is valid during the call and was read at
	// the time now. It calls the methods of Conn. It may end its goroutine.
	Handle(c *Conn, message []byte, now time.Time)
}

// frame returns an event as the protocol renders it.
func (h *Hub) frame(e *Event) *fanout.Frame {
	return fanout.NewFrame(h.cfg.Protocol.Append(nil, *e))
}

// eventFrame is frame for an event of the channel that was published as e. If e permits it, a slow
// client does not receive it.
func (ch *Channel) eventFrame(event *Event, e *broker.Entry) *fanout.Frame {
	if e.Latest == "" && !e.Droppable || e.At.Offset > 0 {
		return ch.hub.frame(event)
	}
	return fanout.NewOmittable(ch.hub.cfg.Protocol.Append(nil, *event), &fanout.Omit{
		Latest:    e.Latest,
		Droppable: e.Droppable,
		Notice:    notice{ch},
	})
}

// notice implements fanout.Notice.
type notice struct{ *Channel }

// Dropped implements fanout.Notice.
func (n notice) Dropped(count int64) *fanout.Frame {
	return n.hub.frame(&Event{
		Kind:    Dropped,
		Channel: n.name,
		Count:   count,
	})
}

// listFrame is frame for an event with a list that clients have requested.
func (h *Hub) listFrame(e *Event) *fanout.Frame {
	return fanout.NewList(h.cfg.Protocol.Append(nil, *e))
}

// Member is a member of a channel, on any node.
type Member struct {
	ID     string
	Owner  string // see package broker
	Node   string
	User   string
	Data   []byte // as the protocol's MemberData returned it; nil if it has none
	Joined time.Time
	MemberState
	Tabs int // the number of members of a user that are shown as one; 0 without Policy.PerUser
	// Text is the member as the protocol renders it, or nil if it has not been rendered.
	// The lock of the channel's fan-outs guards it.
	Text     []byte
	identity string // of the user, see Hub.identity; set when it is added to a replica
	// unlogged means that the member is on this node and that, as far as this node knows,
	// it is not in the log.
	unlogged bool
	since    uint64 // the revision of its Join, which decides its place in the list
	digest   uint64 // its part of replica.digest
}

func newMember(m *broker.Member) *Member {
	return &Member{
		ID:     m.ID,
		Owner:  m.Owner,
		Node:   m.Node,
		User:   m.User,
		Data:   m.Data,
		Joined: m.Joined,
		since:  m.Since,
	}
}
