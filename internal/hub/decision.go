package hub

import (
	"slices"

	"github.com/gopushy/pushy/broker"
)

// DecisionKind is the kind of a Decision.
type DecisionKind string

// The kinds of decisions about a connection.
const (
	DecidedReceived DecisionKind = "received" // a message of the client is handled
	DecidedRefused  DecisionKind = "refused"  // a message of the client was refused
	DecidedAnswered DecisionKind = "sent"     // a message for this client only was queued
	DecidedEvent    DecisionKind = "event"    // an event of a channel was queued
	DecidedLeftOut  DecisionKind = "left out" // the client is not sent an event, which it has caused
	DecidedJoined   DecisionKind = "joined"   // it is in a channel
	DecidedLeft     DecisionKind = "left"     // it is no longer in a channel
	DecidedClosed   DecisionKind = "closed"   // the connection is being closed
)

// Decision is what the node has decided about a connection.
type Decision struct {
	Kind    DecisionKind
	Channel string
	Name    string // of a message or an event
	Code    string // of a refusal, or the close code
	Reason  string
	Data    []byte // of a message or an event; valid during the call
}

// Watch makes the node call the funcs with what it decides about these connections, until the next
// call of Watch. They are called from many goroutines, also under the locks of a channel, so they
// must not block and must not call the hub. With no connections, watching is off, and costs one
// atomic load for each message and each event.
func (h *Hub) Watch(funcs map[*Conn]func(Decision)) {
	if len(funcs) == 0 {
		h.watched.Store(nil)
		return
	}
	h.watched.Store(&funcs)
}

// Watcher returns the func that Watch has set for the connection, or nil.
func (c *Conn) Watcher() func(Decision) {
	watched := c.hub.watched.Load()
	if watched == nil {
		return nil
	}
	return (*watched)[c]
}

// watchEvent reports an event of a channel to those who watch its members.
func (h *Hub) watchEvent(ch *Channel, e *broker.Entry) {
	watched := h.watched.Load()
	if watched == nil {
		return
	}
	for c, report := range *watched {
		if !ch.Has(c) {
			continue
		}
		d := Decision{
			Kind:    DecidedEvent,
			Channel: ch.name,
			Name:    e.Event,
			Data:    e.Data,
		}
		if slices.Contains(e.Except, c.id) {
			d.Kind = DecidedLeftOut
		}
		report(d)
	}
}

// watchSent reports a message for this client only.
func (c *Conn) watchSent(e *Event) {
	report := c.Watcher()
	if report == nil {
		return
	}
	d := Decision{
		Kind:    DecidedAnswered,
		Channel: e.Channel,
		Name:    e.Name,
		Data:    e.Data,
	}
	if e.Kind == Failed {
		d.Kind = DecidedRefused
		d.Code = e.Code
		d.Reason = e.Reason
	}
	report(d)
}

// watchMembership reports that the connection is in a channel, or is no longer.
func (m *membership) watchMembership(kind DecisionKind) {
	if report := m.conn.Watcher(); report != nil {
		report(Decision{
			Kind:    kind,
			Channel: m.name,
		})
	}
}
